"""Which samples a run has used: sums over (position, index) pairs, the same wherever and in whatever order they add up.

Each rank adds the pairs that arrive with its batches, the ranks' sums are added at each checkpoint, and `expected`
works the same sum out from the stream alone. A sample that was left out, used twice or used in another's place changes
it, but for one case in 2**64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from drumbeat.data.order import Integers, keys

BLOCK = 8192
"""Positions worked out at a time: what the processor's cache holds."""


def digest(positions: Integers, indices: Integers) -> int:
    """The sum of the pairs' words modulo 2**64. A pair's word is a hash of its index, started by its position's."""
    starts = keys(0, "ledger", positions=positions)
    words = starts + np.asarray(indices, dtype=np.int64).view(np.uint64)
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # as SplitMix64 ends
        words ^= words >> np.uint64(shift)
        words *= np.uint64(multiplier)
    words ^= words >> np.uint64(31)
    return int(words.sum(dtype=np.uint64))


def expected(reads: Iterable[Integers], indices: Callable[[Integers], Integers],
             count: Callable[[Integers], None] = lambda used: None) -> tuple[int, int]:
    """How many pairs there should be, and their sum, from the blocks of positions that steps read and the stream's
    `indices`. `count` is shown the indices of each block."""
    samples, total = 0, 0
    for positions in reads:
        used = indices(positions)
        count(used)
        samples += len(positions)
        total = (total + digest(positions, used)) % 2**64
    return samples, total


def blocks(first: int, last: int) -> Iterable[Integers]:
    """The positions from `first` up to `last`, in blocks."""
    for start in range(first, last, BLOCK):
        yield np.arange(start, min(start + BLOCK, last))
