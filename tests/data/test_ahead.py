"""The samples of the next steps: the stream's, however they are asked for, and with few questions to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from drumbeat.data.ahead import AT_ONCE, Ahead
from drumbeat.data.order import Integers, Stream, shard

STREAM = Stream(5000, seed=3, phase=1)


class Asked:
    """Counts what the stream is asked."""

    def __init__(self) -> None:
        self.times = 0

    def indices(self, positions: Integers) -> Integers:
        self.times += 1
        return STREAM.indices(positions)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("rank", "ranks"), [(0, 1), (2, 3)])
def test_the_samples_are_those_of_the_stream(rank: int, ranks: int, workers: int) -> None:
    """For each worker, which reads every third batch, across epochs."""
    asked, part = Asked(), shard(32, rank, ranks)
    ahead = Ahead(asked.indices, 32)
    steps = range(7, 600, workers)
    for step in steps:
        positions = np.arange(32 * step + part.start, 32 * step + part.stop)
        assert np.array_equal(ahead(positions), STREAM.indices(positions))
    assert asked.times == -(-593 // (AT_ONCE // len(part)))


def test_other_positions_are_asked_for_as_they_are() -> None:
    """Not contiguous, in another order but with the same ends, a shorter batch, one before, and one far behind."""
    ahead = Ahead(STREAM.indices, 8)
    for positions in ([16, 17, 18, 19, 20, 21, 22, 23], [16, 22, 21, 20, 19, 18, 17, 23], [16, 17, 18], [3, 9, 1],
                      [8, 9, 10, 11, 12, 13, 14, 15], [10**9, 10**9 + 1], [16, 17, 18, 19, 20, 21, 22, 23]):
        where = np.array(positions)
        assert np.array_equal(ahead(where), STREAM.indices(where))


def test_more_samples_than_are_computed_at_a_time() -> None:
    positions = np.arange(3 * AT_ONCE)
    assert np.array_equal(Ahead(STREAM.indices, 3 * AT_ONCE)(positions), STREAM.indices(positions))


def test_a_result_is_its_own() -> None:
    """A worker sends it to its rank, and not what is computed ahead."""
    ahead = Ahead(STREAM.indices, 8)
    assert torch.from_numpy(ahead(np.arange(8))).untyped_storage().nbytes() == 64
