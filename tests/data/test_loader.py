"""From positions to batches: the same tensors whoever fetches them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data.loader import Batch, Fetch, Shares, batches, chunks
from data.memory import Arrays
from data.order import Stream, Timetable


class Noisy:
    """Samples with randomness of all three kinds in them."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor([index, torch.rand(()).item(), random.random(), np.random.rand()]), index


def jitter(value: Tensor) -> Tensor:
    return value + torch.rand(4) * 0.25


def fetch(phase: int = 0) -> Fetch:
    return Fetch(Noisy(), indices=Stream(23, 7, phase).indices, transforms=[jitter], seed=7, phase=phase)


def epoch(world_size: int, workers: int, first: int = 0) -> list[list[Batch]]:
    """The batches of each step, by rank."""
    table = Timetable(23, 6, 2)
    ranks = [batches(fetch(), Shares(table, rank=rank, world_size=world_size, first=first), workers=workers,
                     pin_memory=False) for rank in range(world_size)]
    return [list(step) for step in zip(*ranks, strict=True)]


def joined(steps: list[list[Batch]]) -> list[Tensor]:
    return [torch.cat([batch.inputs for batch in step]) for step in steps]


@pytest.mark.parametrize(("world_size", "workers"), [(2, 0), (3, 1), (6, 0), (1, 2)])
def test_augmented_tensors_are_the_same_at_any_width(world_size: int, workers: int) -> None:
    for ours, alone in zip(joined(epoch(world_size, workers)), joined(epoch(1, 0)), strict=True):
        assert torch.equal(ours, alone)


def test_resuming_is_a_seek() -> None:
    whole = joined(epoch(2, 0))
    for ours, expected in zip(joined(epoch(3, 0, first=4)), whole[4:], strict=True):
        assert torch.equal(ours, expected)


def test_a_batch_says_which_samples_it_holds() -> None:
    for number, step in enumerate(epoch(4, 0)):
        positions = torch.cat([batch.positions for batch in step])
        indices = torch.cat([batch.indices for batch in step])
        assert positions.tolist() == list(range(6 * number, 6 * number + 6))
        assert indices.tolist() == Stream(23, 7, 0).indices(positions.numpy()).tolist()
        assert torch.cat([batch.targets for batch in step]).tolist() == indices.tolist()


def test_another_phase_augments_otherwise() -> None:
    values = [Fetch(Noisy(), indices=lambda p: p, seed=7, phase=phase).__getitems__([3]).inputs for phase in (0, 1)]
    assert not torch.equal(*values)


@pytest.mark.parametrize(("n", "size", "world_size"), [(10, 3, 2), (5, 4, 7), (12, 4, 3), (1, 8, 2)])
def test_chunks_cover_a_set_once(n: int, size: int, world_size: int) -> None:
    shared = [chunks(n, size, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(index for rank in shared for chunk in rank for index in chunk) == list(range(n))
    assert sorted(chunk.start for rank in shared for chunk in rank) == list(range(0, n, size))


def test_whole_batches_from_memory_equal_those_built_one_by_one() -> None:
    arrays = Arrays(torch.randn(9, 2), torch.arange(9))
    whole = Fetch(arrays, indices=Stream(9, 0, 0).indices).__getitems__(range(4))

    class OneByOne:
        def __len__(self) -> int:
            return len(arrays)

        def __getitem__(self, index: int) -> Any:
            return arrays[index]

    single = Fetch(OneByOne(), indices=Stream(9, 0, 0).indices).__getitems__(range(4))
    assert torch.equal(whole.inputs, single.inputs)
    assert torch.equal(whole.targets, single.targets)
