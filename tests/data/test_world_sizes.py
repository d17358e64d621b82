"""The same batches at any world size: positions, samples and tensors, bit for bit, for any number of ranks and loader
workers, from any step, with any order, transforms and mixing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from drumbeat.data.cache import Pixels
from drumbeat.data.fused import fuse
from drumbeat.data.loader import Batch, BatchFetcher, ShardedBatchSampler, batches
from drumbeat.data.mixing import CutMix, Mixing, Mixup
from drumbeat.data.order import Stream
from drumbeat.data.sampling import ClassBalanced, LengthBuckets, SampleStream, Weighted
from drumbeat.data.schedule import Schedule

SEED, PHASE, N = 7, 2, 31
TABLE = Schedule(N, 12, 1.7)
"""Five steps, in two epochs."""


class Scans:
    """Gray pictures of different shapes in three classes, each a function of its number."""

    labels = np.arange(N) % 5 % 3
    lengths = np.random.default_rng(1).integers(1, 9, N)

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels(index)), self.target(index)

    def target(self, index: int) -> int:
        return int(self.labels[index])

    def pixels(self, index: int) -> Pixels:
        dice = np.random.default_rng(index)
        return dice.integers(0, 256, dice.integers(18, 40, 2), dtype=np.uint8)


class Plain:
    """The same without a method `pixels`, like datasets of other libraries."""

    labels, lengths = Scans.labels, Scans.lengths

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Scans()[index]


def geometry() -> list[Any]:
    return [v2.RandomResizedCrop(16, scale=(0.3, 1.0)), v2.RandomRotation(20), v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.4, 0.4)]


def floats() -> list[Any]:
    return [*geometry(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.RandomErasing(0.5),
            v2.GaussianBlur(3), v2.GaussianNoise()]


@dataclass(frozen=True)
class Case:
    """One way to read a set."""

    samples: Any = field(default_factory=Scans)
    transforms: Sequence[Any] = ()
    stream: Callable[[Any], SampleStream] = lambda samples: Stream(N, SEED, PHASE)
    mixing: Mixing | None = None
    window: int | None = None


CASES = {
    "fused": Case(transforms=fuse(geometry())),
    "fused and more": Case(transforms=fuse(floats())),
    "plain": Case(Plain(), geometry()),
    "plain floats": Case(Plain(), floats()),
    "mixup of bytes": Case(transforms=fuse(geometry()), mixing=Mixup()),
    "mixup of floats": Case(transforms=fuse(floats()), mixing=Mixup()),
    "cutmix": Case(Plain(), geometry(), mixing=CutMix()),
    "balanced": Case(transforms=fuse(geometry()), stream=lambda samples: ClassBalanced(samples, SEED, PHASE)),
    "weighted": Case(transforms=fuse(geometry()), stream=lambda samples: Weighted(
        samples, SEED, PHASE, class_weights={"0": 1, "1": 5, "2": 0.5})),
    "windows": Case(transforms=fuse(geometry()), window=2),
    "everything": Case(transforms=fuse(floats()), stream=lambda samples: ClassBalanced(samples, SEED, PHASE),
                       mixing=CutMix(), window=3),
}


def read(case: Case, world_size: int, workers: int, first: int) -> list[list[Batch]]:
    """The batches of each step from `first` on, by rank."""
    ranks = []
    for rank in range(world_size):
        stream = case.stream(case.samples)
        fetch = BatchFetcher(case.samples, indices=stream.indices, transforms=case.transforms, seed=SEED, phase=PHASE,
                      mixing=case.mixing)
        shares: Any = ShardedBatchSampler(TABLE, rank=rank, world_size=world_size, first=first)
        if case.window is not None:
            shares = LengthBuckets(TABLE, stream, case.samples.lengths, batches=case.window, rank=rank,
                                   world_size=world_size, first=first)
        torch.manual_seed(rank)  # whatever the generators were used for before
        ranks.append(list(batches(fetch, shares, workers=workers, pin_memory=False)))
    return [list(step) for step in zip(*ranks, strict=True)]


def joined(step: list[Batch]) -> list[Tensor]:
    """A step over all ranks, in the order of positions: positions, indices, inputs and targets."""
    order = torch.cat([batch.positions for batch in step]).argsort()
    targets = [list(batch.targets.values()) if isinstance(batch.targets, dict) else [batch.targets] for batch in step]
    columns = [[batch.positions for batch in step], [batch.indices for batch in step], [b.inputs for b in step],
               *map(list, zip(*targets, strict=True))]
    return [torch.cat(column)[order] for column in columns]


def assert_same(case: Case, alone: list[list[Tensor]], world_size: int, workers: int, first: int) -> None:
    steps = [joined(step) for step in read(case, world_size, workers, first)]
    assert len(steps) == TABLE.steps - first
    for ours, expected in zip(steps, alone[first:], strict=True):
        assert len(ours) == len(expected)
        for one, other in zip(ours, expected, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


@pytest.fixture(scope="module")
def alone() -> Iterator[dict[str, list[list[Tensor]]]]:
    """The batches of a single rank in each case."""
    yield {name: [joined(step) for step in read(case, 1, 0, 0)] for name, case in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_same_on_any_number_of_ranks_from_any_step(alone: dict[str, list[list[Tensor]]], name: str) -> None:
    for world_size in (1, 2, 3, 4, 6):
        for first in (0, 1, TABLE.steps - 1) if world_size in (2, 3) else (world_size % TABLE.steps,):
            assert_same(CASES[name], alone[name], world_size, 0, first)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more workers than cores, on purpose
@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("name", ["plain floats", "everything"])
def test_the_same_with_any_number_of_loader_workers(alone: dict[str, list[list[Tensor]]], name: str,
                                                    workers: int) -> None:
    for world_size, first in ((1, 0), (2, 3), (3, 0), (4, 1), (6, 2)):
        assert_same(CASES[name], alone[name], world_size, workers, first)


@pytest.mark.parametrize("name", CASES)
def test_one_worker_and_two_ranks(alone: dict[str, list[list[Tensor]]], name: str) -> None:
    """The most common setting, in each case."""
    assert_same(CASES[name], alone[name], 2, 1, 0)


@pytest.mark.parametrize("name", CASES)
def test_the_cases_are_random_and_cover_the_phase(alone: dict[str, list[list[Tensor]]], name: str) -> None:
    """Otherwise they would test nothing: no two visits of a sample are equal, and each position is read."""
    positions, indices, inputs = (torch.cat([step[column] for step in alone[name]]) for column in range(3))
    assert positions.sort().values.tolist() == list(range(TABLE.steps * TABLE.batch_size))
    assert indices.tolist() == CASES[name].stream(CASES[name].samples).indices(positions.numpy()).tolist()
    assert len(indices.unique()) < len(indices)
    assert len(torch.unique(inputs.flatten(1), dim=0)) == len(inputs)


class Large:
    """Pictures so large that torch divides their sums among its threads."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.rand((3, 512, 512), generator=torch.Generator().manual_seed(index)), index


def test_a_sum_over_a_large_image_does_not_depend_on_the_threads() -> None:
    """Contrast uses such a sum. A loader worker has one thread; a rank without workers may have several."""
    before = torch.get_num_threads()
    fetch = BatchFetcher(Large(), indices=lambda positions: positions, transforms=[v2.ColorJitter(contrast=0.5)],
                         seed=SEED)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(fetch.__getitems__(range(4)).inputs)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
