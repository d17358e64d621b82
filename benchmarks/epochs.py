"""An epoch of the shipped configs of small sets, compared with the loop that their sources write.

    python -m benchmarks.epochs [--only fashion|cifar|text] [--rounds N] [--threads N] [--json]

An epoch is the training and the evaluation of the validation set. Ours is the real loop with a run folder, curves,
status and a checkpoint; the peer is the same model and optimizer in the source's loop. The measure is CPU time: that
of the process, and of processes that it has started and waited for. The contestants alternate (A B A B); the medians
over the rounds are shown.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks import sources
from benchmarks.report import Row, show
from drumbeat.configs.load import load
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.schema import Config
from drumbeat.trainers.build import Sets, build_forward, build_model, build_sets, build_task
from drumbeat.trainers.build_phases import build_batches
from drumbeat.trainers.facts import facts_of, with_facts
from drumbeat.trainers.forward import call
from drumbeat.trainers.kernels import prefer_determinism
from drumbeat.trainers.position import build_schedules
from drumbeat.trainers.target import instantiate
from drumbeat.trainers.worker import build
from drumbeat.trainers.world import World

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
KEPT = 200
"""Batches that are kept in memory to measure the model alone."""
Epoch = Callable[[], object]


@contextmanager
def torch_settings(*, deterministic: bool) -> Iterator[None]:
    """The settings that a worker chooses, which the peer does not have."""
    prefer_determinism(deterministic=deterministic, threads=torch.get_num_threads())
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Ours:
    """A config of one epoch and its sets, in memory."""

    config: Config
    sets: Sets

    @classmethod
    def of(cls, name: str, changes: Iterable[str]) -> Ours:
        config = load(name, ["phases.train.epochs=1", "launch.gpus=0", "launch.procs=1", "tracking.images=0", *changes]
                      ).config
        sets = build_sets(config)
        return cls(with_facts(config, facts_of(sets.train)), sets)

    def train(self) -> None:
        """The epoch as the worker trains it, from the built model to the checkpoint on the disk."""
        with tempfile.TemporaryDirectory() as folder:
            run = RunDir(Path(folder) / "run")
            run.path.mkdir()
            run.config.touch()
            training = build(run, run.claim_attempt(), self.config, self.sets, ALONE, threads=torch.get_num_threads(),
                             debug=True)
            with torch_settings(deterministic=self.config.deterministic):
                try:
                    training.run()
                finally:
                    training.checkpoints.close()
                    training.saver.tracker.close()
                    training.watchdog.close()

    def batches(self) -> Iterator[tuple[Any, Tensor]]:
        """The batches of the epoch, as the model gets them."""
        forward, (schedule,) = build_forward(self.config, ALONE.device), build_schedules(
            self.config, len(self.sets.train), None)
        for batch in build_batches(self.config, self.sets, 0, schedule, 0, world=ALONE, workers=0):
            yield forward.inputs(batch.inputs), batch.targets

    def load(self) -> None:
        """All batches of the epoch, and nothing else."""
        for _ in self.batches():
            pass

    def model_alone(self) -> Epoch:
        """The arithmetic of the epoch's training: forward, backward and optimizer on batches in memory."""
        model, task = build_model(self.config), build_task(self.config, self.sets)
        if self.config.channels_last and any(one.dim() == 4 for one in model.parameters()):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        phase = self.config.phases["train"]
        assert phase is not None
        optimizer: torch.optim.Optimizer = instantiate(phase.optimizer, "optimizer", list(model.parameters()))
        kept = list(islice(self.batches(), KEPT))
        steps = -(-len(self.sets.train) // self.config.batch_size)

        def epoch() -> None:
            model.train()
            for inputs, targets in islice(cycle(kept), steps):
                cast(Tensor, task.losses(call(model, inputs), targets)).mean().backward()
                if phase.clip_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), phase.clip_norm)
                optimizer.step()
                optimizer.zero_grad()

        return epoch


def fashion(folder: Path, samples: int | None = None) -> tuple[Ours, dict[str, sources.Peer]]:
    """Fashion-MNIST: the real set if Debian's package is installed, or else random images in its format."""
    sources.write_fashion(folder, samples)
    ours = Ours.of("mlp_fashion_mnist", [f"data.root={folder}/FashionMNIST/raw"])
    return ours, {"torchvision and DataLoader": sources.fashion(folder)}


def cifar(folder: Path, samples: int | None = None) -> tuple[Ours, dict[str, sources.Peer]]:
    """Random images in the format of CIFAR-10, with the flips and rotations of the shipped config."""
    sources.write_cifar(folder, samples or 12_500)
    ours = Ours.of("cnn_cifar10_augmented", [f"data.root={folder}"])
    return ours, {"torchvision and DataLoader": sources.cifar(folder, ours.config.batch_size)}


def text(folder: Path, samples: int | None = None) -> tuple[Ours, dict[str, sources.Peer]]:
    """Drawn stories of the lengths of news, with the shipped LSTM."""
    sources.write_news(folder, samples or 2_500)
    ours = Ours.of("lstm_news", [f"data.root={folder}", "data.test={}"])
    return ours, {"random batches, padded": sources.text(folder / "train.csv", bucketed=False, packed=False),
                  "texts of similar length, packed": sources.text(folder / "train.csv", bucketed=True, packed=True)}


@dataclass(frozen=True)
class Benchmark:
    """What is compared, and the ratio of an epoch that is wanted with the first of the peers."""

    name: str
    make: Callable[[Path, int | None], tuple[Ours, dict[str, sources.Peer]]]
    wanted: float


BENCHMARKS = {
    "fashion": Benchmark("Fashion-MNIST, MLP", fashion, 10),
    "cifar": Benchmark("CIFAR-10, augmented, CNN", cifar, 4),
    "text": Benchmark("news, LSTM", text, 1.5),
}


def cpu_seconds() -> float:
    """CPU seconds of this process so far, and of the processes that it has waited for."""
    return sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def measured(epoch: Epoch) -> tuple[float, float]:
    """CPU seconds and seconds."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    epoch()
    return cpu_seconds() - cpu, time.perf_counter() - wall


def compared(name: str, ours: Ours, peers: dict[str, sources.Peer], *, rounds: int, wanted: float
             ) -> tuple[list[Row], str]:
    """For each peer an epoch in CPU time and in seconds, and its batches alone; and what the model alone takes."""
    contestants = {("epoch", "ours"): ours.train, ("batches", "ours"): ours.load, ("model", "ours"): ours.model_alone()}
    for peer, loop in peers.items():
        contestants |= {("epoch", peer): loop.train, ("batches", peer): loop.load}
    readings: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in contestants}
    for number in range(rounds):
        for key, epoch in contestants.items():
            readings[key].append(measured(epoch))
            cpu, wall = readings[key][-1]
            print(f"{name}, round {number + 1} of {rounds}, {': '.join(key)}: {cpu:.2f} CPU s, {wall:.2f} s",
                  file=sys.stderr)
    cpus, walls = ({key: statistics.median(one[which] for one in several) for key, several in readings.items()}
                   for which in (0, 1))
    rows = []
    for number, peer in enumerate(peers):
        for what, unit, times in ("epoch", "CPU s", cpus), ("epoch", "s", walls), ("batches", "CPU s", cpus):
            own, other = times[what, "ours"], times[what, peer]
            rows.append(Row(name=f"{name}: {'an epoch' if what == 'epoch' else 'its batches alone'}", unit=unit,
                            ours=own, peer=other, peer_name=peer, ratio=other / own,
                            wanted=wanted if (what, unit, number) == ("epoch", "CPU s", 0) else None))
    model = cpus["model", "ours"]
    best = ", ".join(f"{cpus['epoch', peer] / model:.1f} ({peer})" for peer in peers)
    return rows, (f"Limit of {name}: training the model alone, on batches in memory, takes {model:.2f} CPU s, so the "
                  f"ratio of the epoch is at most {best}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each contestant (default: 2)")
    parser.add_argument("--only", default="", metavar="WORD", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, for all contestants (default: 1)")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[Row] = []
    limits: list[str] = []
    for name, benchmark in BENCHMARKS.items():
        if args.only in name:
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # what training prints
                ours, peers = benchmark.make(Path(folder), None)
                more, limit = compared(benchmark.name, ours, peers, rounds=args.rounds, wanted=benchmark.wanted)
                rows, limits = rows + more, [*limits, limit]
    show(rows, as_json=args.json, limit="\n".join(limits))


if __name__ == "__main__":
    main()
