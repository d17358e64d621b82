"""data/order.py alone: its promised values, that permutations permute and mix, and the arithmetic of steps and epochs.

`reference_permutation` is the Feistel network a second time, in plain integers and with an inverse, so that an overflow
or a slip in the vectorised one cannot hide.
"""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from drumbeat.data.order import (
    LARGEST,
    ROUNDS,
    SMALL,
    Integers,
    Permutation,
    Stream,
    key,
    keys,
    micro_batches,
    shard,
)

HUGE = [SMALL + 1, 2**31 - 1, 2**32 + 1, 10**12, 10**12 + 39, LARGEST - 1, LARGEST]


def chi_square(counts: Integers) -> float:
    """How far counts are from being equal, in standard deviations: a fair draw gives about -3 to 4."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    return float(((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


# The promise: a run is resumed with the order it was started with. If one of these fails, the format has changed.


def test_golden_keys() -> None:
    assert key(0) == 7670994958692043829
    assert key(17, "order", 0, 3) == 5017433435877454934
    assert key(-1, "augment", 2**70) == 10011513830316707815
    assert key(7, "é") == 3560318813884158368
    words = keys(17, "augment", 0, positions=np.array([0, 1, 2, 2**40]))
    assert words.tolist() == [16760267048868581641, 4639053854407110626, 5744816811168341044, 17785107662843774038]


@pytest.mark.parametrize(
    ("n", "values"),
    [
        (10, [6, 4, 5, 7, 0, 8, 2, 1]),
        (1024, [28, 214, 526, 626, 564, 933, 304, 755]),
        (1025, [328, 527, 49, 131, 449, 957, 393, 849]),
        (10**6, [384508, 83032, 429449, 542764, 79948, 223580, 497182, 984318]),
        (
            2**40,
            [
                1029136397590,
                926867864726,
                276240048416,
                461960299424,
                1063368016007,
                668787436543,
                718644150231,
                1052700967649,
            ],
        ),
    ],
)
def test_golden_permutations(n: int, values: list[int]) -> None:
    assert Permutation(n, key(17, "order", 0, 0))(np.arange(8)).tolist() == values


def test_golden_streams() -> None:
    assert Stream(5, 17, 2).indices(np.arange(15)).tolist() == [4, 3, 1, 2, 0, 0, 1, 2, 3, 4, 0, 4, 1, 2, 3]
    assert Stream(5000, 17, 2).indices(np.arange(4996, 5004)).tolist() == [1039, 3299, 1241, 3711, 943, 947, 1091, 4238]


# Keys.


def test_no_two_lists_of_parts_share_a_key() -> None:
    numbers = [(), (0,), (1,), (-1,), (10,), (1, 0), (2**63,), (-(2**63),), (2**64,), (2**64 + 1,), (2**1000,)]
    texts = [("",), ("", ""), ("1",), ("i1e",), ("1:1",), ("a",), ("a", "b"), ("ab",), ("a", "", "b"), ("a1:b",)]
    mixed = [("a", 1), ("a1",), (1, "a"), ("é",), ("e\u0301",), ("order", 1, 2), ("order", 12), ("order", 2, 1)]
    parts: list[tuple[str | int, ...]] = [*numbers, *texts, *mixed]
    found = {key(seed, *part) for seed in (0, 1, -1, 2**64, 2**128) for part in parts}
    assert len(found) == 5 * len(parts)
    assert all(0 <= value < 2**64 for value in found)


def test_neighbouring_seeds_and_epochs_do_not_alias() -> None:
    """`seed + epoch` gives run 1 in epoch 0 the order of run 0 in epoch 1."""
    assert len({key(seed, "order", 0, epoch) for seed in range(100) for epoch in range(100)}) == 100 * 100


def test_key_takes_integers_and_strings_only() -> None:
    part = np.int64(3)
    assert key(3, "a", 3) == key(part, "a", part)  # type: ignore[arg-type]
    for wrong in (1.0, None, b"a", ("a",)):
        with pytest.raises(TypeError):
            key(0, wrong)  # type: ignore[arg-type]


def test_keys_are_splitmix64() -> None:
    """Generator number key(...), output number p, computed one at a time."""
    start = key(5, "augment", 1)
    positions = np.array([0, 1, 7, 10**12, 2**62])
    words = keys(5, "augment", 1, positions=positions)
    assert words.tolist() == [splitmix(start, p) for p in positions.tolist()]


def test_splitmix_is_the_published_one() -> None:
    """The first outputs for seed 1234567, as in Rosetta Code's task "Pseudo-random numbers/Splitmix64"."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [splitmix(1234567, p) for p in range(4)] == published


def test_keys_do_not_depend_on_the_block() -> None:
    whole = keys(3, "augment", 0, positions=np.arange(1000))
    assert whole.dtype == np.uint64
    assert len(set(whole.tolist())) == 1000
    for size in (1, 7, 999):
        parts = [keys(3, "augment", 0, positions=np.arange(i, min(i + size, 1000))) for i in range(0, 1000, size)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert keys(3, "augment", 0, positions=np.array(12)).shape == ()
    assert keys(3, "augment", 0, positions=np.array(12)) == whole[12]
    assert keys(3, "augment", 0, positions=np.arange(6).reshape(2, 3)).tolist() == whole[:6].reshape(2, 3).tolist()
    assert keys(3, "augment", 0, positions=np.array([], dtype=np.int64)).shape == (0,)
    with pytest.raises(ValueError, match="positions -1 to 3"):
        keys(3, positions=np.array([3, -1]))


def test_each_bit_of_a_position_moves_half_the_bits_of_its_key() -> None:
    positions = np.arange(4096)
    words = keys(11, "augment", 0, positions=positions)
    for bit in range(40):
        changed = words ^ keys(11, "augment", 0, positions=positions ^ (1 << bit))
        flipped = (changed[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
        assert abs(flipped.mean(axis=0) - 0.5).max() < 0.045, bit  # 5.7 standard deviations, of 64 draws in 40 rows


# Permutations.


def splitmix(start: int, index: int) -> int:
    word = (start + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


def rounds(n: int, start: int) -> list[tuple[int, int]]:
    """The key of each round, and the side by which it shifts."""
    height = math.isqrt(n - 1) + 1
    sides = (height, -(-n // height))
    return [(splitmix(start, i), sides[i % 2]) for i in range(ROUNDS)]


def shift(column: int, round_key: int, side: int) -> int:
    square = ((column + round_key) * 0xBF58476D1CE4E5B9 % 2**64) ** 2 % 2**64
    return (square >> 32) * side >> 32


def reference_permutation(n: int, start: int, position: int) -> int:
    width = rounds(n, start)[1][1]
    cell = position
    while True:
        row, column = divmod(cell, width)
        for round_key, side in rounds(n, start):
            row, column = column, (row + shift(column, round_key, side)) % side
        cell = row * width + column
        if cell < n:
            return cell


def reference_inverse(n: int, start: int, value: int) -> int:
    width = rounds(n, start)[1][1]
    cell = value
    while True:
        row, column = divmod(cell, width)
        for round_key, side in reversed(rounds(n, start)):
            row, column = (column - shift(row, round_key, side)) % side, row
        cell = row * width + column
        if cell < n:
            return cell


@pytest.mark.parametrize("n", [SMALL + 1, 1155, 5856, 65537, *HUGE])
def test_permutation_is_the_reference_and_has_an_inverse(n: int) -> None:
    start = key(1, "reference", n)
    positions = np.random.default_rng(n).integers(0, n, 60)
    values = Permutation(n, start)(positions)
    assert values.tolist() == [reference_permutation(n, start, p) for p in positions.tolist()]
    assert positions.tolist() == [reference_inverse(n, start, value) for value in values.tolist()]


SIZES = sorted(
    {
        *range(1, 40),
        *(2**k + d for k in range(6, 18) for d in (-1, 0, 1)),
        *(SMALL + d for d in range(-3, 40)),
        *(m * m + d for m in (33, 77, 256, 300) for d in (-1, 0, 1, m, m + 1)),
        *(65537, 5856, 7919, 10007, 99991, 104729, 524287, 700001),
        *np.random.default_rng(0).integers(1000, 10**5, 40).tolist(),
    }
)


def test_every_value_once() -> None:
    for n in SIZES:
        values = Permutation(n, key(n, "bijection"))(np.arange(n))
        assert values.dtype == np.int64
        assert np.array_equal(np.bincount(values, minlength=n), np.ones(n)), n


@pytest.mark.parametrize("n", HUGE)
def test_huge_sets_give_distinct_values_in_range(n: int) -> None:
    size = min(n // 4, 20_000)
    starts = np.random.default_rng(n).integers(0, n - size, 3)
    positions = np.unique(np.concatenate([np.arange(s, s + size) for s in (0, n - size, *starts.tolist())]))
    values = Permutation(n, key(n, "huge"))(positions)
    assert values.min() >= 0
    assert values.max() < n
    assert len(np.unique(values)) == len(positions)


@pytest.mark.parametrize("n", [600, 100_003])
def test_permutation_does_not_depend_on_the_block(n: int) -> None:
    permutation = Permutation(n, 5)
    whole = permutation(np.arange(600))
    for size in (1, 16, 599):
        parts = [permutation(np.arange(i, min(i + size, 600))) for i in range(0, 600, size)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert permutation(np.arange(600).reshape(20, 30)[:, ::3]).tolist() == whole.reshape(20, 30)[:, ::3].tolist()
    assert permutation(np.array(7)).shape == ()
    assert permutation(np.array(7)) == whole[7]
    assert permutation(np.array([], dtype=np.int64)).shape == (0,)


@pytest.mark.parametrize("n", [600, 100_003])
def test_permutation_does_not_change_its_input(n: int) -> None:
    positions = np.arange(600)
    positions.flags.writeable = False
    Permutation(n, 5)(positions)
    Stream(n, 5, 0).indices(positions)
    Stream(n, 5, 0, shuffle=False).indices(positions)


@pytest.mark.parametrize("n", [10, 5000])
def test_position_outside_the_set_is_rejected(n: int) -> None:
    for wrong in (-1, n, 2**62):
        with pytest.raises(ValueError, match=f"are not all in 0 to {n - 1}"):
            Permutation(n, 0)(np.array([0, wrong]))


@pytest.mark.parametrize("n", [0, -1, LARGEST + 1])
def test_size_outside_the_limits_is_rejected(n: int) -> None:
    with pytest.raises(ValueError, match=f"not {n}"):
        Permutation(n, 0)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_small_sets_reach_every_order_equally_often(n: int) -> None:
    orders = Counter(tuple(Permutation(n, key(k))(np.arange(n)).tolist()) for k in range(3000))
    assert len(orders) == math.factorial(n)
    assert chi_square(np.array(list(orders.values()))) < 4


@pytest.mark.parametrize("n", [5, 17, 64])
def test_every_value_equally_often_at_every_position(n: int) -> None:
    values = np.stack([Permutation(n, key(k))(np.arange(n)) for k in range(4000)])
    assert chi_square(np.bincount((values + np.arange(n) * n).ravel(), minlength=n * n)) < 4
    neighbours = (np.diff(values, axis=1) % n).ravel()
    assert chi_square(np.bincount(neighbours, minlength=n)[1:]) < 4


@pytest.mark.parametrize("n", [SMALL + 1, 1500])
def test_smallest_computed_permutations_are_uniform_over_keys(n: int) -> None:
    """Small rectangles are the worst case of the network: with four rounds, 1025 and 1500 fail here."""
    across = math.isqrt(n - 1) + 1
    positions = np.array([0, 1, across, n // 2, n // 2 + 1, n - 1])
    values = np.stack([Permutation(n, key(k))(positions) for k in range(8000)])
    for column in range(len(positions)):
        assert chi_square(np.bincount(values[:, column] * 64 // n, minlength=64)[:63]) < 5
        for other in range(column):
            distance = (values[:, column] - values[:, other]) % n
            assert chi_square(np.bincount(distance * 64 // n, minlength=64)[1:63]) < 5


@pytest.mark.parametrize("n", [1600, 5856, 10**6, 10**9, LARGEST])
def test_neighbours_in_the_stream_are_unrelated(n: int) -> None:
    """Within one epoch: no serial correlation, and distances between neighbours repeat no more often than by chance."""
    across = math.isqrt(n - 1) + 1
    permutation = Permutation(n, key(2, "neighbours"))
    size = min(n // 2, 60_000)
    values = permutation(np.arange(size))
    for lag in (1, 2, across - 1, across, across + 1):
        later = permutation((np.arange(size) + lag) % n)
        correlation = np.corrcoef(values.astype(np.float64), later.astype(np.float64))[0, 1]
        assert abs(correlation) < 5 / math.sqrt(size)
        distance = (later - values) % n
        assert chi_square(np.bincount(distance // (n // 256 + 1), minlength=256)[1:200]) < 5
        repeats = size - len(np.unique(distance))
        chance = size - n * -math.expm1(size * math.log1p(-1 / n))
        assert abs(repeats - chance) < 6 * math.sqrt(chance + 1)


# Streams.


def test_stream_is_its_formula() -> None:
    for n in (1, 3, 50, SMALL + 1):
        positions = np.random.default_rng(n).integers(0, 4 * n, 100)
        expected = [int(Permutation(n, key(9, "order", 1, p // n))(np.array(p % n))) for p in positions.tolist()]
        assert Stream(n, 9, 1).indices(positions).tolist() == expected
        assert Stream(n, 9, 1).indices(positions.reshape(10, 10)).tolist() == np.reshape(expected, (10, 10)).tolist()


def test_each_epoch_and_phase_has_its_own_order() -> None:
    n = 2000
    orders = [Stream(n, 9, phase).indices(np.arange(3 * n)).reshape(3, n) for phase in range(3)]
    for one in np.concatenate(orders):
        assert np.array_equal(np.sort(one), np.arange(n))
    assert len({tuple(one.tolist()) for one in np.concatenate(orders)}) == 9


def test_unshuffled_stream_repeats_the_set() -> None:
    assert Stream(3, 9, 0, shuffle=False).indices(np.arange(7)).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_stream_rejects_negative_positions_and_accepts_an_empty_list() -> None:
    with pytest.raises(ValueError, match="positions -3 to 5"):
        Stream(10, 0, 0).indices(np.array([5, -3]))
    assert Stream(10, 0, 0).indices(np.array([], dtype=np.int64)).shape == (0,)


def test_values_can_be_pickled() -> None:
    for thing in (Permutation(5, 1), Stream(5, 1, 0)):
        assert pickle.loads(pickle.dumps(thing)) == thing


def test_order_needs_no_torch() -> None:
    subprocess.run([sys.executable, "-c", "import sys, drumbeat.data.order; assert 'torch' not in sys.modules"],
                   check=True)


# Shards and micro-batches.


def test_shards_cover_the_batch_evenly() -> None:
    for batch_size in range(1, 40):
        for world_size in range(1, batch_size + 1):
            shares = [shard(batch_size, rank, world_size) for rank in range(world_size)]
            assert [i for part in shares for i in part] == list(range(batch_size))
            assert {len(part) for part in shares} <= {batch_size // world_size, -(-batch_size // world_size)}


def test_batch_smaller_than_the_world_size_is_rejected() -> None:
    with pytest.raises(ValueError, match="use at most 3 ranks or a batch_size of at least 4"):
        shard(3, 0, 4)
    for rank in (-1, 4):
        with pytest.raises(ValueError, match=f"rank {rank} is not in 0 to 3"):
            shard(8, rank, 4)


def test_micro_batches_are_few_and_equal() -> None:
    for size in range(1, 60):
        for largest in range(1, size + 3):
            parts = micro_batches(size, largest)
            lengths = [len(part) for part in parts]
            assert [i for part in parts for i in part] == list(range(size))
            assert max(lengths) <= largest
            assert len(parts) == -(-size // largest)
            assert max(lengths) - min(lengths) <= 1
            assert min(lengths) > 1 or largest == 1 or size == 1 or (largest == 2 and size % 2)
    for wrong in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match="cannot be split"):
            micro_batches(*wrong)
