"""The cost of measuring the times of the ranks: steps with and without it, in turn, in the same processes.

    python -m benchmarks.step_times [--pairs N] [--only WORD] [--json]

On 2 ranks on this machine's CPU, with one thread each. Compared is the time that the main thread of rank 0 computes in
a step, which other programs on the machine disturb less than the time that passes. The waiting for the other rank,
reading data and writing curves are left out, so a step of a run takes longer, and the part that measuring takes of it
is smaller.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import torch
from torch import nn

from benchmarks.loop import RANKS
from benchmarks.report import Row, show
from drumbeat.data.loader import Batch
from drumbeat.models.mlp import MLP
from drumbeat.models.transfer import ResNet18
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.step_times import StepTimes
from drumbeat.trainers.tasks import Classification
from drumbeat.trainers.world import World, join

SHAPES = {"ResNet-18, 64 px, batch 16": (3, 64, 64), "MLP 784-256-128-10, batch 16": (784,)}
BATCH = 16
STEPS = {3: 1, 1: 100}
"""The steps of a turn, by the number of dimensions of a sample."""
LIMIT = """Limit: 1. An exchange of the times, every two seconds, is not included: {:.2f} ms."""


def runner(name: str, world: World) -> PhaseRunner:
    """The training of a model on random samples."""
    model: nn.Module = ResNet18(classes=10) if "ResNet" in name else MLP(in_features=784, classes=10)
    return PhaseRunner(name="only", number=0, seed=0, model=model, frozen=[], task=Classification(), world=world,
                       batch_size=BATCH, make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3),
                       forward=Forward(device=world.device, transforms=nn.Identity(), channels_last=False, bf16=False))


def measured(name: str, world: World, pairs: int) -> tuple[float, float]:
    """Milliseconds of a step with the measurement, and their ratio to those without it: medians over pairs of turns."""
    phase, shape, size = runner(name, world), SHAPES[name], BATCH // world.size
    one = Batch(torch.rand(size, *shape), torch.zeros(size, dtype=torch.int64), torch.arange(size), torch.arange(size),
                torch.zeros(size, dtype=torch.bool))
    phase.start([one], None)
    kinds = (phase.times, StepTimes(replace(world, size=1), []))  # one rank measures nothing
    found: list[list[float]] = []
    for pair in range(pairs + 1):
        turn = {}
        for number in (0, 1) if pair % 2 else (1, 0):
            phase.times = kinds[number]
            began = time.thread_time()
            for step in range(STEPS[len(shape)]):
                phase.backward([one], step)
                phase.settle(phase.update())
            phase.times.read()
            turn[number] = (time.thread_time() - began) / STEPS[len(shape)]
        found.append([turn[0], turn[1]])
    return 1e3 * statistics.median(on for on, _ in found[1:]), statistics.median(on / off for on, off in found[1:])


def exchange_ms(world: World) -> float:
    """Milliseconds of an exchange on rank 0."""
    seconds = []
    for _ in range(50):
        began = time.perf_counter()
        world.gather(torch.zeros(5, dtype=torch.float64))
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)


def rank(pairs: int, only: str) -> None:
    """Rank 0 prints its figures."""
    torch.set_num_threads(1)
    with join("cpu") as world:
        figures = {name: measured(name, world, pairs) for name in SHAPES if only in name}
        exchange = exchange_ms(world)
        if world.is_main:
            print(json.dumps([figures, exchange]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=50, help="pairs of turns (default: 50)")
    parser.add_argument("--only", default="", metavar="WORD", help="only models with this word in their names")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        return rank(args.pairs, args.only)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}", "-m",
               "benchmarks.step_times", "--rank", "--pairs", str(args.pairs), f"--only={args.only}"]
    done = subprocess.run(["env", "OMP_NUM_THREADS=1", *command], check=True, stdout=subprocess.PIPE, text=True)
    figures, exchange = json.loads(done.stdout.splitlines()[-1])
    rows = [Row(name=name, unit="ms/step", ours=step, peer=step / ratio, peer_name="without measuring", ratio=1 / ratio)
            for name, (step, ratio) in figures.items()]
    show(rows, as_json=args.json, limit=LIMIT.format(exchange))
    for name, (_, ratio) in figures.items():
        print(f"{name}: {ratio:.4f} times the step without measuring", file=sys.stderr)
    return None


if __name__ == "__main__":
    main()
