"""Draws by weight in constant time: weights as whole numbers, laid out so that a random word picks a sample."""

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
    general distributions", 1977. Every column holds `total` parts, of at most two samples.
    """

    total: int
    """Sum of the weights."""

    thresholds: Integers
    """Of the `total` parts of column i, how many belong to sample i itself: int64 [n]."""

    others: Integers
    """To which sample the rest of column i belongs: int64 [n]."""

    cuts: UInt64s
    """thresholds / total in parts of 2**64, rounded down: uint64 [n]. Arbitrary where a column has no rest."""

    @classmethod
    def build(cls, weights: Integers) -> AliasTable:
        """Lay out whole weights int64 [n] exactly.

        It is the sweep of Hübschle-Schneider and Sanders, "Parallel weighted random sampling", 2022: the rich fill up
        the poor, in order, and one who thereby became poor is filled up by the next. Sums say who fills whom, so it
        takes a few passes over arrays, where Vose's two stacks of 1991 take n turns of a loop.

        Raises ValueError for a negative weight, for no positive one, and where n * sum(weights) reaches 2**63.
        """
        n, total = len(weights), sum(weights.tolist())
        if n == 0 or int(weights.min()) < 0 or total == 0:
            raise ValueError("weights must not be negative, and one at least must be positive")
        if total * n >= 2**63 or total >= 2**62:
            raise ValueError(f"{n} weights of sum {total} are too large to lay out in 64 bits")
        parts = weights.astype(np.int64) * n
        poor, rich = np.flatnonzero(parts < total), np.flatnonzero(parts >= total)
        lacking = np.concatenate([[0], np.cumsum(total - parts[poor])])  # before each of the poor, and after the last
        spare = np.cumsum(parts[rich] - total)  # up to and with each of the rich
        thresholds, others = np.full(n, total, dtype=np.int64), np.arange(n)
        thresholds[poor] = parts[poor]
        others[poor] = rich[np.searchsorted(spare, lacking[:-1], side="right")]
        thresholds[rich] = total + spare - lacking[np.searchsorted(lacking, spare, side="left")]
        overdrawn = np.flatnonzero(thresholds[rich] < total)  # never the last, as all sums meet there
        others[rich[overdrawn]] = rich[overdrawn + 1]
        return cls(total, thresholds, others, _binary(thresholds, total))

    def probabilities(self) -> list[Fraction]:
        """The chance of each sample, exactly, read off the columns. Slow: for tests."""
        n = len(self.others)
        chances = [Fraction(0)] * n
        for i, (threshold, other) in enumerate(zip(self.thresholds.tolist(), self.others.tolist(), strict=True)):
            chances[i] += Fraction(threshold, self.total * n)
            chances[other] += Fraction(self.total - threshold, self.total * n)
        return chances

    def draw(self, words: UInt64s) -> Integers:
        """One sample for each random word, uint64 to int64 of the same shape.

        Of word * n, which has 128 bits, the upper half is the column and the lower half the coin tossed in it (Lemire,
        "Fast random integer generation in an interval", 2019). A word has 64 bits, so the chance of a sample is off by
        less than 2**-63 for each column that holds it.
        """
        n = len(self.others)
        upper, lower = (words >> 32) * n, (words & 0xFFFFFFFF) * n
        upper += lower >> 32
        columns = (upper >> 32).astype(np.int64)
        coins = (upper << 32) | (lower & 0xFFFFFFFF)
        return np.where(coins < self.cuts[columns], columns, self.others[columns])


def _binary(parts: Integers, total: int) -> UInt64s:
    """The first 64 binary digits of parts / total < 1, by long division, so many at once as an int64 has room for."""
    rest, digits, missing = parts, np.zeros(len(parts), dtype=np.uint64), 64
    while missing:
        some = min(missing, 63 - total.bit_length())
        rest = rest << some
        quotient = rest // total
        rest -= quotient * total
        digits <<= some
        digits |= quotient.view(np.uint64)
        missing -= some
    return digits


def whole_weights(weights: Floats) -> Integers:
    """Float weights [n] as whole numbers, int64 [n], that an `AliasTable` can lay out.

    They are multiplied by a power of two, which is exact, to a sum of about 2**bits, bits = 62 - n.bit_length(), and
    rounded up. So whole numbers and halves, quarters ... keep their ratios exactly, a positive weight stays positive,
    and otherwise a chance p is off by at most (2 + 2 n p) / 2**bits: 1e-12 for a typical p = 1e-6 of a million samples.

    Raises ValueError for a weight that is negative, infinite or not a number, and for weights that are all zero.
    """
    wrong = np.flatnonzero(~(weights >= 0) | np.isinf(weights))
    if len(wrong):
        raise ValueError(f"weight {weights[wrong[0]]} (number {wrong[0]}, from 0) is not a positive number or 0")
    if not weights.any():
        raise ValueError("all weights are 0: one at least must be positive")
    scaled = np.ldexp(weights, -math.frexp(weights.max())[1])  # at most 1, so that the sum cannot overflow
    bits = 62 - len(weights).bit_length()
    return np.ceil(np.ldexp(scaled, bits - math.frexp(math.fsum(scaled))[1])).astype(np.int64)
