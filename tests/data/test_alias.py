"""Weighted sampling: exact alias tables, and invalid weights."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from drumbeat.data.alias import AliasTable, whole_weights


def chances(weights: list[int]) -> list[Fraction]:
    return AliasTable.build(np.array(weights)).probabilities()


@pytest.mark.parametrize("n", [1, 2, 13, 200])
def test_alias_tables_are_exact(n: int) -> None:
    dice = random.Random(n)
    for _ in range(50):
        weights = [dice.choice([0, 1, 7, dice.randint(0, 1000)]) for _ in range(n - 1)] + [dice.randint(1, 10)]
        dice.shuffle(weights)
        assert [chance * sum(weights) for chance in chances(weights)] == weights
        few = [dice.randint(0, 3) for _ in range(n - 1)] + [2]  # many of just the mean weight, and sums that meet
        assert [chance * sum(few) for chance in chances(few)] == few
    assert chances([3] * n) == [Fraction(1, n)] * n
    assert chances([2, 1, 3]) == [Fraction(2, 6), Fraction(1, 6), Fraction(3, 6)]


def test_cuts_are_the_binary_digits_of_the_thresholds() -> None:
    for largest in (2, 1000, 2**45):
        table = AliasTable.build(np.random.default_rng(0).integers(1, largest, 100))
        for threshold, cut, other, i in zip(table.thresholds.tolist(), table.cuts.tolist(), table.others.tolist(),
                                            range(100), strict=True):
            assert cut == threshold * 2**64 // table.total or (threshold == table.total and other == i)


def test_a_draw_is_the_product_of_its_random_number_and_n() -> None:
    """Compared with Python's integers, which cannot overflow."""
    table = AliasTable.build(np.random.default_rng(0).integers(0, 2**40, 1000))
    edges = [-(-((column << 64) + edge) // 1000) for column in range(1000) for edge in (0, int(table.cuts[column]))]
    near = {edge + step for edge in edges for step in (-1, 0, 1)} - {-1, 2**64, 2**64 + 1}
    numbers = np.array(sorted(near), dtype=np.uint64)
    for number, drawn in zip(numbers.tolist(), table.draw(numbers).tolist(), strict=True):
        column, coin = divmod(number * 1000, 2**64)
        assert drawn == (column if coin < int(table.cuts[column]) else table.others[column])


def test_whole_weights_keep_simple_ratios_and_bound_the_rest() -> None:
    exact = whole_weights(np.array([1, 0, 7, 2.5, 90, 0, 3, 1]))
    assert [Fraction(part, int(exact[0])) for part in exact.tolist()] == [1, 0, 7, Fraction(5, 2), 90, 0, 3, 1]
    floats = np.random.default_rng(0).gamma(0.2, size=5000) * 1e300
    floats[0] = 1.0
    parts, sum_of_floats = whole_weights(floats).tolist(), sum(map(Fraction, floats.tolist()))
    bits = 62 - (5000).bit_length()
    for part, weight in zip(parts, floats.tolist(), strict=True):
        chance = Fraction(weight) / sum_of_floats
        assert abs(Fraction(part, sum(parts)) - chance) <= (2 + 2 * 5000 * chance) / 2**bits
    assert parts[0] > 0
    AliasTable.build(np.array(parts))


@pytest.mark.parametrize(("weights", "message"), [
    ([1, -0.5], r"weight -0\.5 \(number 1, from 0\)"), ([math.nan, 1], r"weight nan \(number 0"),
    ([1, 2, math.inf], r"weight inf \(number 2"), ([0, 0], "all weights are 0"),
])
def test_invalid_weights_are_rejected(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        whole_weights(np.array(weights, dtype=np.float64))


@pytest.mark.parametrize("weights", [[], [0, 0], [2, -1]])
def test_invalid_whole_weights_are_rejected(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="must not be negative, and at least one"):
        AliasTable.build(np.array(weights, dtype=np.int64))
    with pytest.raises(ValueError, match="too large for an alias table"):
        AliasTable.build(np.array([2**61, 2**61]))


def test_a_million_weights_are_laid_out_exactly() -> None:
    """Sums over columns equal the weights, in integers: as in `probabilities`, without its fractions."""
    weights = np.random.default_rng(0).integers(0, 2**20, 10**6) ** 2 >> 18
    table = AliasTable.build(weights)
    held = table.thresholds.astype(object)
    np.add.at(held, table.others, table.total - table.thresholds)
    assert np.array_equal(held, weights.astype(object) * len(weights))
