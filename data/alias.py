"""Weighted sampling in constant time: an alias table of integer weights, from which a random integer draws a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from drumbeat.data.order import Integers, UInt64s

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AliasTable:
    """Draws from n weights in constant time: Walker, "An efficient method for generating discrete random variables with
    general distributions", 1977. Each of the n columns has `total` parts, which belong to at most two samples.
    """

    total: int
    """Sum of the weights."""

    thresholds: Integers
    """How many of the `total` parts of column i belong to sample i: int64 [n]."""

    others: Integers
    """The sample to which the other parts of column i belong: int64 [n]."""

    cuts: UInt64s
    """thresholds / total * 2**64, rounded down: uint64 [n]. Arbitrary for a column that belongs to one sample."""

    @classmethod
    def build(cls, weights: Integers) -> AliasTable:
        """Builds the table of integer weights int64 [n], exactly.

        This is the sweep of Hübschle-Schneider and Sanders, "Parallel weighted random sampling", 2022: heavy samples
        fill the columns of light ones, in order, and a heavy sample that has become light is filled by the next one.
        Cumulative sums give the assignment, so it takes a few passes over arrays, while Vose's two stacks (1991) take
        n iterations of a loop.

        Raises ValueError for a negative weight, if no weight is positive, and if n * sum(weights) is 2**63 or more.
        """
        n, total = len(weights), sum(weights.tolist())
        if n == 0 or int(weights.min()) < 0 or total == 0:
            raise ValueError("weights must not be negative, and at least one must be positive")
        if total * n >= 2**63 or total >= 2**62:
            raise ValueError(f"{n} weights with sum {total} are too large for an alias table of 64-bit integers")
        parts = weights.astype(np.int64) * n
        light, heavy = np.flatnonzero(parts < total), np.flatnonzero(parts >= total)
        deficit = np.concatenate([[0], np.cumsum(total - parts[light])])  # before each light sample, and after the last
        surplus = np.cumsum(parts[heavy] - total)  # up to and including each heavy sample
        thresholds, others = np.full(n, total, dtype=np.int64), np.arange(n)
        thresholds[light] = parts[light]
        others[light] = heavy[np.searchsorted(surplus, deficit[:-1], side="right")]
        thresholds[heavy] = total + surplus - deficit[np.searchsorted(deficit, surplus, side="left")]
        overdrawn = np.flatnonzero(thresholds[heavy] < total)  # never the last: both sums are equal there
        others[heavy[overdrawn]] = heavy[overdrawn + 1]
        return cls(total, thresholds, others, _binary(thresholds, total))

    def probabilities(self) -> list[Fraction]:
        """The exact probability of each sample, from the table. Slow: for tests."""
        n = len(self.others)
        chances = [Fraction(0)] * n
        for i, (threshold, other) in enumerate(zip(self.thresholds.tolist(), self.others.tolist(), strict=True)):
            chances[i] += Fraction(threshold, self.total * n)
            chances[other] += Fraction(self.total - threshold, self.total * n)
        return chances

    def draw(self, random: UInt64s) -> Integers:
        """One sample for each random integer: uint64 to int64 of the same shape.

        The upper half of the 128-bit product random * n is the column, and the lower half decides between its two
        samples (Lemire, "Fast random integer generation in an interval", 2019). With 64 random bits, the probability of
        a sample is off by less than 2**-63 for each column that it has parts of.
        """
        n = len(self.others)
        upper, lower = (random >> 32) * n, (random & 0xFFFFFFFF) * n
        upper += lower >> 32
        columns = (upper >> 32).astype(np.int64)
        coins = (upper << 32) | (lower & 0xFFFFFFFF)
        return np.where(coins < self.cuts[columns], columns, self.others[columns])


def _binary(parts: Integers, total: int) -> UInt64s:
    """The first 64 binary digits of parts / total < 1, by long division, with as many digits per round as fit an int64.
    """
    rest, digits, missing = parts, np.zeros(len(parts), dtype=np.uint64), 64
    while missing:
        count = min(missing, 63 - total.bit_length())
        rest = rest << count
        quotient = rest // total
        rest -= quotient * total
        digits <<= count
        digits |= quotient.view(np.uint64)
        missing -= count
    return digits


def whole_weights(weights: Floats) -> Integers:
    """Float weights [n] as integers, int64 [n], for an `AliasTable`.

    They are multiplied by a power of two, which is exact, so that their sum is about 2**bits, bits = 62 -
    n.bit_length(), and rounded up. So integers, halves, quarters ... keep their exact ratios, a positive weight stays
    positive, and otherwise the error of a probability p is at most (2 + 2 n p) / 2**bits: 1e-12 for a typical p = 1e-6
    of a million samples.

    Raises ValueError for a weight that is negative, infinite or NaN, and if all weights are zero.
    """
    wrong = np.flatnonzero(~(weights >= 0) | np.isinf(weights))
    if len(wrong):
        raise ValueError(f"weight {weights[wrong[0]]} (number {wrong[0]}, from 0) is not a positive number or 0")
    if not weights.any():
        raise ValueError("all weights are 0: at least one must be positive")
    scaled = np.ldexp(weights, -math.frexp(weights.max())[1])  # at most 1, so that the sum does not overflow
    bits = 62 - len(weights).bit_length()
    return np.ceil(np.ldexp(scaled, bits - math.frexp(math.fsum(scaled))[1])).astype(np.int64)
