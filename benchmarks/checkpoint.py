"""How long a training step is blocked by saving a checkpoint: ours, torch.save, and torch's asynchronous save.

    python -m benchmarks.checkpoint [--rounds N] [--json]

ResNet-50 with AdamW, after one step. The contestants alternate (A B A B); the medians over the rounds are shown.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import async_save

from benchmarks.report import Row, show
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.models.transfer import ResNet50ConcatPool
from drumbeat.trainers.checkpoints.manager import Checkpoints
from drumbeat.trainers.checkpoints.state import parameter_names, training_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contestant (default: 5)")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = ResNet50ConcatPool(classes=2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model(torch.zeros(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    names = parameter_names(model)
    tensors = {**model.state_dict(), **training_state(optimizer, None, names)[0]}
    copies = {name: torch.zeros_like(value) for name, value in tensors.items()}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        run = RunDir(home / "run")
        checkpoints = Checkpoints(run, run.claim_attempt(), keep=1)
        began = time.perf_counter()
        checkpoints.lay_out(model.state_dict(), training_state(optimizer, None, names)[0])
        laid_out = time.perf_counter() - began
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]

        def ours(number: int) -> float:
            began = time.perf_counter()
            checkpoints.save(Progress(step=number), model.state_dict(), *training_state(optimizer, None, names))
            stall = time.perf_counter() - began
            checkpoints.wait()
            return stall

        def plain(number: int) -> float:
            began = time.perf_counter()
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, home / "plain.pt")
            return time.perf_counter() - began

        def asynchronous(number: int) -> float:
            began = time.perf_counter()
            future = async_save({"tensors": tensors}, checkpoint_id=str(home / f"dcp-{number}"))
            stall = time.perf_counter() - began
            assert isinstance(future, Future)
            future.result()
            return stall

        def copy(number: int) -> float:
            began = time.perf_counter()
            for name, value in tensors.items():
                copies[name].copy_(value)
            return time.perf_counter() - began

        contestants: dict[str, Callable[[int], float]] = {
            "ours": ours, "torch.save": plain, "torch.distributed.checkpoint.async_save": asynchronous,
            "one copy in memory": copy}
        readings: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(args.rounds + 1):
            for name, contestant in contestants.items():
                readings[name].append(contestant(number + 1))
        checkpoints.close()
        dist.destroy_process_group()
    medians = {name: 1e3 * statistics.median(several[1:]) for name, several in readings.items()}
    rows = [Row(name="step blocked by a save", unit="ms", ours=medians["ours"], peer=medians[peer], peer_name=peer,
                ratio=medians[peer] / medians["ours"]) for peer in medians if peer != "ours"]
    size = sum(value.nbytes for value in tensors.values())
    show(rows, as_json=args.json, limit=(
        f"Limit: one copy of the {size / 1e6:.0f} MB in memory, with one thread.\n"
        f"Allocating the memory before the first step took {1e3 * laid_out:.0f} ms. The first save took "
        f"{1e3 * readings['ours'][0]:.0f} ms, that of DCP for "
        f"{1e3 * readings['torch.distributed.checkpoint.async_save'][0]:.0f} ms."))


if __name__ == "__main__":
    main()
