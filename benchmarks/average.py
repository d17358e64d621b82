"""The cost of an exponential moving average of the weights: an update of it beside a step of a ResNet-50.

    python -m benchmarks.average [--steps N] [--pixels N] [--json]

On one rank with one thread, 16 images a step. Measured is the time that the main thread computes, which other programs
on the machine disturb less than the time that passes; and the update alone, because a step takes seconds and the
difference of two steps would be lost among theirs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.models import resnet50

from benchmarks.report import Row, show
from drumbeat.data.loader import Batch
from drumbeat.trainers.averaging import Averaging
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.tasks import Classification
from drumbeat.trainers.world import World

BATCH = 16
LIMIT = """Limit: 1. An update reads each weight and its average once, and writes the average: {:.1f} ms alone."""


def runner() -> PhaseRunner:
    """The training of a ResNet-50 whose weights are averaged after each step."""
    world = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
    model = resnet50(num_classes=10).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    make = partial(AveragedModel, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    return PhaseRunner(name="only", number=0, seed=0, model=model, frozen=[], task=Classification(), world=world,
                       batch_size=BATCH, make_average=make,
                       make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
                       forward=Forward(device=world.device, transforms=nn.Identity(), channels_last=True, bf16=False))


def measured(steps: int, pixels: int) -> tuple[float, float]:
    """Milliseconds of a step and of an update: medians."""
    phase = runner()
    numbers = torch.arange(BATCH)
    one = Batch(torch.rand(BATCH, 3, pixels, pixels), numbers % 10, numbers, numbers, numbers < 0)
    phase.start([one], None)
    average, phase.averaging = phase.averaging, Averaging(phase.optimizer, phase.model)
    found: list[tuple[float, float]] = []
    for step in range(steps):
        began = time.thread_time()
        phase.backward([one], step)
        phase.settle(phase.update(), step + 1)
        between = time.thread_time()
        average.update()
        found.append((between - began, time.thread_time() - between))
    return 1e3 * statistics.median(step for step, _ in found), 1e3 * statistics.median(update for _, update in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=9, help="steps to measure (default: 9)")
    parser.add_argument("--pixels", type=int, default=224, help="the side of an image (default: 224)")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    step, update = measured(args.steps, args.pixels)
    rows = [Row(name=f"EMA of a ResNet-50, {args.pixels} px, batch {BATCH}", unit="CPU ms/step", ours=step + update,
                peer=step, peer_name="without an average", ratio=step / (step + update), wanted=0.99)]
    show(rows, as_json=args.json, limit=LIMIT.format(update))


if __name__ == "__main__":
    main()
