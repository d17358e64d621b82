"""The ledger: sums that change if a sample is lost, duplicated or exchanged, and not otherwise."""

from __future__ import annotations

import random

import numpy as np
import pytest

from drumbeat.data.ledger import BLOCK, blocks, digest, expected
from drumbeat.data.order import Integers, Stream, keys, shard
from drumbeat.data.schedule import Schedule

SEED = 17
MASK = 2**64 - 1
GOLDEN = [0xD39A9384889FFA98, 0x8D58A22CEDFE52AB, 0xB9630A6E9A7D0A17]


def pairs(n: int = 40) -> tuple[Integers, Integers]:
    """Positions from 7 on, and their samples."""
    positions = np.arange(7, 7 + n)
    return positions, Stream(23, SEED, 0).indices(positions)


# The promise: a run is verified with another version than it was trained with. If this fails, the format has changed.


def test_golden_digests() -> None:
    assert digest(np.array([0]), np.array([0])) == GOLDEN[0]
    assert digest(np.arange(10), np.arange(10)[::-1]) == GOLDEN[1]
    assert digest(np.array([2**62, 3]), np.array([2**40 - 1, 5])) == GOLDEN[2]
    assert digest(np.array([], dtype=np.int64), np.array([], dtype=np.int64)) == 0


def test_a_digest_is_the_sum_of_hashed_pairs() -> None:
    """Compared with Python's integers: Vigna's SplitMix64 mix, seeded with key plus index."""
    positions, indices = pairs()
    total = 0
    for start, index in zip(keys(0, "ledger", positions=positions).tolist(), indices.tolist(), strict=True):
        word = (start + index) & MASK
        word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & MASK
        word = ((word ^ word >> 27) * 0x94D049BB133111EB) & MASK
        total += word ^ word >> 31
    assert digest(positions, indices) == total & MASK


def test_order_and_parts_do_not_matter() -> None:
    positions, indices = pairs()
    dice = np.random.default_rng(0)
    for cut in (0, 1, 13, 40):
        shuffled = dice.permutation(40)
        parts = [digest(positions[part], indices[part]) for part in (shuffled[:cut], shuffled[cut:])]
        assert sum(parts) % 2**64 == digest(positions, indices)


def test_digests_do_not_change_their_inputs() -> None:
    positions, indices = pairs()
    before = positions.copy(), indices.copy()
    digest(positions[::2], indices[::2])
    digest(positions, indices)
    assert np.array_equal(positions, before[0])
    assert np.array_equal(indices, before[1])


def test_exchanged_lost_and_duplicated_samples_change_the_digest() -> None:
    positions, indices = pairs()
    right = digest(positions, indices)
    wrong = []
    for i in range(40):
        rest = np.arange(40) != i
        wrong.append(digest(positions[rest], indices[rest]))  # lost
        wrong.append(digest(np.append(positions, positions[i]), np.append(indices, indices[i])))  # used twice
        for j in range(i):
            if indices[i] != indices[j]:
                exchanged = indices.copy()
                exchanged[[i, j]] = indices[[j, i]]
                wrong.append(digest(positions, exchanged))
            lost_and_doubled = np.where(np.arange(40) == i, j, np.arange(40))
            wrong.append(digest(positions[lost_and_doubled], indices[lost_and_doubled]))
    assert right not in wrong
    assert len(set(wrong)) == len(wrong)  # and none hides another


def test_a_replaced_sample_changes_the_digest() -> None:
    """Also if one position gains what its neighbour loses, which plain sums would not detect."""
    positions, indices = pairs()
    dice = random.Random(0)
    for _ in range(500):
        i, j = dice.sample(range(40), 2)
        off = dice.choice([1, 2, 2**20, 2**40])
        changed = indices.copy()
        changed[i] += off
        assert digest(positions, changed) != digest(positions, indices)
        changed[j] -= off
        assert digest(positions, changed) != digest(positions, indices)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_the_ranks_sums_equal_the_closed_form(world_size: int) -> None:
    table = Schedule(101, 12, 2.5)
    stream = Stream(101, SEED, 3)
    total = samples = 0
    for step in range(2, 9):
        for rank in range(world_size):
            part = shard(12, rank, world_size)
            positions = np.array(table.positions(step)[part.start:part.stop])
            total += digest(positions, stream.indices(positions))
            samples += len(positions)
    assert expected(blocks(2 * 12, 9 * 12), stream.indices) == (samples, total % 2**64)


def test_blocks_cover_a_range_once_and_report_progress() -> None:
    shown: list[int] = []
    first, last = 5, 5 + 2 * BLOCK + 1
    samples, total = expected(blocks(first, last), lambda positions: positions * 3,
                              lambda used: shown.extend(used.tolist()))
    assert samples == 2 * BLOCK + 1
    assert shown == [3 * position for position in range(first, last)]
    whole = np.arange(first, last)
    assert total == digest(whole, whole * 3)
    assert max(map(len, blocks(first, last))) == BLOCK
    assert expected(blocks(4, 4), lambda positions: positions) == (0, 0)
