"""Repeated augmentation: each sample as often as it should be, near its copies, and never mixed with one of them."""

from __future__ import annotations

import numpy as np
import pytest

from drumbeat.data.mixing import Mixup
from drumbeat.data.order import Stream
from drumbeat.data.repeated import Repeated

SEED, N = 17, 37
STREAMS = [Repeated(range(N), SEED, 1, times=times) for times in (1, 2, 3, 4)]
by_times = pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: f"{stream.times} times")


def test_golden_stream() -> None:
    """A run is resumed with the order it was started with. If this fails, the order has changed."""
    assert Repeated(range(10), SEED, 0).indices(np.arange(18)).tolist() == [
        6, 4, 5, 7, 0, 8, 6, 7, 5, 8, 0, 4, 6, 8, 5, 4, 0, 7]


@by_times
def test_each_sample_is_read_as_often_and_near_its_copies(stream: Repeated) -> None:
    """Over whole blocks and passes through the set; the order of samples is that without repetitions."""
    width = 2 * stream.times
    indices = stream.indices(np.arange(N * width * stream.times))
    assert np.bincount(indices, minlength=N).tolist() == [width * stream.times] * N
    blocks = np.sort(indices.reshape(-1, stream.times, width), axis=2)
    assert (blocks == blocks[:, :1]).all()
    expected = Stream(N, SEED, 1).indices(np.arange(N * width)).reshape(-1, width)
    assert np.array_equal(blocks[:, 0], np.sort(expected, axis=1))


@by_times
def test_partners_are_other_samples_and_other_ones_for_each_copy(stream: Repeated) -> None:
    width = 2 * stream.times
    positions = np.arange(N // width * width * stream.times)  # within one epoch, in which each sample is another one
    pairs = np.stack([stream.indices(positions), stream.indices(Mixup().partners(positions))], axis=1)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len({*map(tuple, pairs.tolist())}) == len(positions)


@by_times
def test_it_is_a_function_of_the_position(stream: Repeated) -> None:
    positions = np.arange(120)
    whole = stream.indices(positions)
    assert np.array_equal(stream.indices(positions.reshape(10, 12)).ravel(), whole)
    assert np.array_equal(stream.indices(positions[::-7]), whole[::-7])
    with pytest.raises(ValueError):
        stream.indices(np.array([-1]))


def test_the_rule_and_a_number_that_does_not_fit() -> None:
    assert STREAMS[2].rule == ("each sample is read 3 times, with another augmentation each time, before the next "
                               "ones; 3 epochs read each sample 3 times, but for up to 6 at their end")
    counts = np.bincount(STREAMS[2].indices(np.arange(3 * N)))
    assert 0 < (counts != 3).sum() <= 6
    with pytest.raises(ValueError, match="times must be at least 1, not 0"):
        Repeated(range(4), SEED, 0, times=0)
