"""How long a save blocks a training step, and how long the whole write takes while all cores compute.

    python -m benchmarks.checkpoint [--rounds N] [--json]

ResNet-50 with AdamW, after one step, beside torch.save, torch's asynchronous save (DCP), and one copy in memory. The
contestants alternate (A B A B); the medians over the rounds are shown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import async_save

from benchmarks.report import Row, show
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.models.transfer import ResNet50ConcatPool
from drumbeat.trainers.checkpoints.manager import Checkpoints
from drumbeat.trainers.checkpoints.state import parameter_names, training_state
from drumbeat.trainers.checkpoints.writer import PATIENCE

DCP = "torch.distributed.checkpoint.async_save"
COPY = "one copy in memory"

Save = Callable[[], Callable[[], object]]
"""Blocks a step for a save, and returns a function that waits until it is written."""


class Contestants:
    """The ways to save a model and its optimizer, into a folder."""

    def __init__(self, model: nn.Module, home: Path) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        self.home = home
        self.steps = count(1)
        model(torch.zeros(2, 3, 64, 64)).sum().backward()
        self.optimizer.step()
        self.names = parameter_names(model)
        self.tensors = {**model.state_dict(), **training_state(self.optimizer, None, self.names)[0]}
        self.copies = {name: torch.zeros_like(value) for name, value in self.tensors.items()}
        self.megabytes = sum(value.nbytes for value in self.tensors.values()) / 1e6
        run = RunDir(home / "run")
        self.checkpoints = Checkpoints(run, run.claim_attempt(), keep=1)
        began = time.perf_counter()
        self.checkpoints.lay_out(model.state_dict(), training_state(self.optimizer, None, self.names)[0])
        self.laid_out = time.perf_counter() - began
        """Seconds, before the first step."""

    def ours(self) -> Callable[[], object]:
        self.checkpoints.save(Progress(step=next(self.steps)), self.model.state_dict(),
                              *training_state(self.optimizer, None, self.names))
        return self.checkpoints.wait

    def ours_unattended(self) -> Callable[[], object]:
        """Ours, for which nobody waits until the next save."""
        self.ours()

        def look() -> None:
            while self.checkpoints.pending:
                self.checkpoints.check()
                time.sleep(0.05)

        return look

    def plain(self) -> Callable[[], object]:
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, self.home / "plain.pt")
        return lambda: None

    def asynchronous(self) -> Callable[[], object]:
        future = async_save({"tensors": self.tensors}, checkpoint_id=str(self.home / f"dcp-{next(self.steps)}"))
        assert isinstance(future, Future)
        return future.result

    def copy(self) -> Callable[[], object]:
        for name, value in self.tensors.items():
            self.copies[name].copy_(value)
        return lambda: None


@contextmanager
def contestants(model: nn.Module) -> Iterator[Contestants]:
    """In a temporary folder, in a group of one rank, which DCP needs."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        made = Contestants(model, Path(folder))
        try:
            yield made
        finally:
            made.checkpoints.close()
            dist.destroy_process_group()


@contextmanager
def busy_cores() -> Iterator[None]:
    """A program that computes, on each core."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def seconds(saves: dict[str, Save], rounds: int) -> dict[str, tuple[float, float]]:
    """The medians of the seconds that a step is blocked, and of those until all is written; by contestant."""
    readings: dict[str, list[tuple[float, float]]] = {name: [] for name in saves}
    for _ in range(rounds):
        for name, save in saves.items():
            began = time.perf_counter()
            end = save()
            blocked = time.perf_counter() - began
            end()
            readings[name].append((blocked, time.perf_counter() - began))
    return {name: (statistics.median(one for one, _ in several), statistics.median(one for _, one in several))
            for name, several in readings.items()}


WANTED = {COPY: 1 / 1.2, DCP: 1.0, "torch.save": 1.0}
"""The smallest good ratios: a step is blocked for at most 1.2 copies."""


def rows_of(name: str, unit: str, scale: float, ours: float, peers: dict[str, float], *,
            wanted: Mapping[str, float]) -> list[Row]:
    """A comparison with each peer. The times are in seconds, and shown times `scale`."""
    return [Row(name=name, unit=unit, ours=scale * ours, peer=scale * peer, peer_name=peer_name, ratio=peer / ours,
                wanted=wanted.get(peer_name)) for peer_name, peer in peers.items()]


def measured(made: Contestants, rounds: int) -> list[Row]:
    """All comparisons."""
    saves = {"ours": made.ours, "torch.save": made.plain, DCP: made.asynchronous, COPY: made.copy}
    seconds(saves, 1)  # allocates memory
    quiet = {name: blocked for name, (blocked, _) in seconds(saves, rounds).items()}
    with busy_cores():
        busy = seconds(saves | {"unattended": made.ours_unattended}, -(-rounds // 2))
    written = {name: busy[name][1] for name in ("torch.save", DCP)}
    return [*rows_of("step blocked by a save", "ms", 1e3, quiet.pop("ours"), quiet, wanted=WANTED),
            *rows_of("step blocked by a save, all cores busy", "ms", 1e3, busy["ours"][0],
                     {name: busy[name][0] for name in (*written, COPY)}, wanted={}),
            *rows_of("whole write, all cores busy, the rank waits", "s", 1.0, busy["ours"][1], written, wanted=WANTED),
            *rows_of("whole write, all cores busy, nobody waits", "s", 1.0, busy["unattended"][1], written, wanted={})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contestant (default: 5)")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = ResNet50ConcatPool(classes=2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with contestants(model) as made:
        rows = measured(made, args.rounds)
    show(rows, as_json=args.json, limit=(
        f"Limit: one copy of the {made.megabytes:.0f} MB in memory, with one thread. A write for which nobody waits "
        f"leaves the cores to\nothers for {PATIENCE:.0f} s, and then hurries. Allocating the memory before the first "
        f"step took {1e3 * made.laid_out:.0f} ms."))


if __name__ == "__main__":
    main()
