"""The cost of the same bits at any number of ranks: steps of ResNet-50 with `virtual_ranks`, and with
DistributedDataParallel on micro-batches of the same samples, in turn, in the same processes.

    python -m benchmarks.any_width [--pairs N] [--pixels N] [--json]

On 2 ranks on this machine's CPU, with one thread each. Compared is the processor time of rank 0, with the threads that
exchange gradients, from the forward pass to the end of the optimizer's step; the ratio of the time that passes, which
other programs on the machine disturb, is printed besides. Smaller images make a step shorter and the sum of the
gradients as long, so the ratio is higher than that of a run on larger ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

from benchmarks.loop import RANKS
from benchmarks.report import Row, show
from drumbeat.data.loader import Batch
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.micro_batches import MicroBatches
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.replica import wrap
from drumbeat.trainers.tasks import Classification
from drumbeat.trainers.world import World, join

BATCH, VIRTUAL = 16, 4


def runner(world: World, virtual_ranks: int | None) -> PhaseRunner:
    """The training of ResNet-50."""
    from torchvision.models import resnet50

    return PhaseRunner(name="only", number=0, seed=0, model=resnet50(), frozen=[], task=Classification(), world=world,
                       batch_size=BATCH, micro_batches=MicroBatches(BATCH // VIRTUAL, world),
                       virtual_ranks=virtual_ranks,
                       make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
                       forward=Forward(device=world.device, transforms=nn.Identity(), channels_last=False, bf16=False),
                       make_replica=lambda model, world: wrap(model, world, averages=virtual_ranks is None))


def measured(world: World, pairs: int, pixels: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Seconds of each step, exact and with DistributedDataParallel: those of the processor, and those that passed."""
    generator = torch.Generator().manual_seed(world.rank)
    found: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    runners = (runner(world, VIRTUAL), runner(world, None))
    shares = []
    for one in runners:
        size = BATCH // one.gradients.division.count
        shares.append([Batch(torch.rand(size, 3, pixels, pixels, generator=generator), torch.zeros(size).long(),
                             torch.arange(size), torch.arange(size), torch.zeros(size).bool())
                       for _ in one.gradients.division.own])
        one.start(shares[-1], None)
    for pair in range(pairs + 1):
        for kind in (0, 1) if pair % 2 else (1, 0):
            world.all_reduce(torch.zeros(1))
            began = time.process_time(), time.perf_counter()
            runners[kind].backward(shares[kind], pair)
            runners[kind].settle(runners[kind].update())
            found[kind].append((time.process_time() - began[0], time.perf_counter() - began[1]))
    return found[0][1:], found[1][1:]


def rank(pairs: int, pixels: int) -> None:
    """Rank 0 prints its figures."""
    torch.set_num_threads(1)
    with join("cpu") as world:
        figures = measured(world, pairs, pixels)
        if world.is_main:
            print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=15, help="pairs of steps (default: 15)")
    parser.add_argument("--pixels", type=int, default=224, help="the images' height and width (default: 224)")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        return rank(args.pairs, args.pixels)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}", "-m",
               "benchmarks.any_width", "--rank", "--pairs", str(args.pairs), "--pixels", str(args.pixels)]
    done = subprocess.run(["env", "OMP_NUM_THREADS=1", *command], check=True, stdout=subprocess.PIPE, text=True)
    exact, plain = json.loads(done.stdout.splitlines()[-1])
    ratio, passed = (statistics.median(one[kind] / other[kind] for one, other in zip(exact, plain, strict=True))
                     for kind in (0, 1))
    show([Row(name=f"ResNet-50, {args.pixels} px, batch {BATCH} in {VIRTUAL} parts", unit="ms/step",
              ours=1e3 * statistics.median(one for one, _ in exact),
              peer=1e3 * statistics.median(one for one, _ in plain),
              peer_name="DistributedDataParallel", ratio=1 / ratio, wanted=0.8)],
         as_json=args.json, limit="Limit: 1, if the sum of the gradients took no time.")
    print(f"{ratio:.3f} times the processor time of DistributedDataParallel's step, and {passed:.3f} times the time",
          file=sys.stderr)
    return None


if __name__ == "__main__":
    main()
