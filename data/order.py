"""The order of samples as a function: without a generator or any state to save.

A phase reads an infinite stream of positions p = 0, 1, 2, ... over a dataset of n samples:

    epoch of p       p // n
    sample at p      Permutation(n, key(seed, "order", phase, p // n))(p % n)
    step of p        p // batch_size
    seed of p        keys(seed, "augment", phase, positions=p)

Ranks, loader workers and restarts only determine which process computes which positions, so they cannot change the
order, and a resumed run continues at the next position. All functions use integer arithmetic, which is the same on
every machine. Their values are pinned in tests/data/test_order.py, because a run may be resumed with another version of
this file.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

LARGEST = 2**40
"""The largest n of a permutation: the sides of its rectangle then fit in 20 bits, and no product overflows."""

SMALL = 1024
"""Permutations up to this n are sorted, not computed: faster, exactly uniform, and a few kilobytes at most."""

ROUNDS = 6
"""Feistel rounds. From n = 1025 on, four fail tests of neighboring positions, and five pass; six leave a margin."""

# The increment and the multipliers of SplitMix64.
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(seed: int, *purpose: str | int) -> int:
    """A hash of a seed and a purpose, such as ("order", phase, epoch): an integer in [0, 2**64), which can be a seed.

    The parts are encoded as in BitTorrent's bencode (BEP 3), 7 as `i7e` and "order" as `5:order`, so that different
    lists of parts have different encodings, and hashed with BLAKE2b (RFC 7693). Integers may be negative and large.

    Raises TypeError for a part that is neither a string nor an integer.
    """
    digest = blake2b(b"".join(map(_bencode, (seed, *purpose))), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _bencode(part: str | int) -> bytes:
    if isinstance(part, str):
        text = part.encode()
        return b"%d:%s" % (len(text), text)
    return b"i%de" % operator.index(part)  # numpy's integers too, but not 1.0


def keys(seed: int, *purpose: str | int, positions: Integers) -> UInt64s:
    """A 64-bit hash of each position: int64 to uint64 of the same shape.

    All positions have different hashes. Raises ValueError for a negative position.
    """
    return _splitmix(key(seed, *purpose), _flat(positions, 2**63)).reshape(np.shape(positions))


def _splitmix(start: int, index: UInt64s) -> UInt64s:
    """Output number `index` (from 0) of the generator SplitMix64 with seed `start`: a bijection of 64-bit integers.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, as in Vigna's splitmix64.c.
    """
    word = index * GOLDEN
    word += (start + GOLDEN) % 2**64
    word ^= word >> 30
    word *= FIRST
    word ^= word >> 27
    word *= SECOND
    word ^= word >> 31
    return word


def _flat(positions: Integers, end: int) -> UInt64s:
    """Positions as a flat array of unsigned integers, whose arithmetic wraps around. Raises ValueError for a position
    outside range(end)."""
    flat = np.asarray(positions, dtype=np.int64).reshape(-1).view(np.uint64)
    if flat.max(initial=0) >= end:  # a negative position becomes a huge integer
        signed = flat.view(np.int64)
        raise ValueError(f"positions {signed.min()} to {signed.max()} are not all in 0 to {end - 1}")
    return flat


@dataclass(frozen=True)
class Permutation:
    """A keyed bijection of range(n): maps int64 positions of any shape to int64 values of the same shape.

    It needs almost no memory at any n, and is fastest in blocks of about 8,000 positions, which fit in the processor's
    cache.

    It is the generalized Feistel cipher of Black and Rogaway, "Ciphers with arbitrary finite domains", 2002. A position
    is a cell of a rectangle with at least n cells. Each round shifts its row by a pseudorandom function of its column,
    then swaps rows and columns. A result of n or more is encrypted again until it is below n ("cycle walking"). There
    are fewer than n + sqrt(n) + 1 cells, so this is rare; sides that are powers of two would need up to 2n cells.
    """

    n: int
    """The number of values, from 1 to 2**40."""

    key: int
    """The key that selects the permutation, in [0, 2**64)."""

    def __post_init__(self) -> None:
        if not 1 <= self.n <= LARGEST:
            raise ValueError(f"a permutation needs 1 to {LARGEST} samples, not {self.n}")

    def __call__(self, positions: Integers) -> Integers:
        """The values at the positions. Raises ValueError for a position outside range(n)."""
        cells = _flat(positions, self.n)
        if self.n <= SMALL:  # short sides mix badly: at n = 16, pairs of neighbors are 5 % off uniform after six rounds
            return self._sorted[cells].reshape(np.shape(positions))
        cells = self._shuffle(cells)
        while (outside := cells >= self.n).any():
            cells[outside] = self._shuffle(cells[outside])
        return cells.view(np.int64).reshape(np.shape(positions))

    @cached_property
    def _sorted(self) -> Integers:
        """All values, sorted by hashes. All hashes are different, so every sorting algorithm gives the same order."""
        return np.argsort(_splitmix(self.key, np.arange(self.n, dtype=np.uint64)))

    @cached_property
    def _round_keys(self) -> UInt64s:
        return _splitmix(self.key, np.arange(ROUNDS, dtype=np.uint64))

    def _shuffle(self, cells: UInt64s) -> UInt64s:
        """Applies all rounds to cells of the rectangle.

        The round function takes the middle bits of a square (Widynski, "Squares: a fast counter-based RNG", 2020), and
        scales these 32 bits to the side with a product (Lemire, "Fast random integer generation in an interval", 2019).
        """
        height = math.isqrt(self.n - 1) + 1
        width = -(-self.n // height)
        row = cells // width
        column = cells - row * width
        for round_key in self._round_keys:
            shift = column + round_key
            shift *= FIRST
            shift *= shift
            shift >>= 32
            shift *= height
            shift >>= 32
            row += shift
            np.minimum(row, row - height, out=row)  # row % height without division: negative numbers wrap to huge ones
            row, column = column, row
            height, width = width, height
        return row * width + column


@dataclass(frozen=True)
class Stream:
    """The samples of one phase in the order in which they are read, over any number of epochs."""

    n: int
    """Samples in the dataset."""

    seed: int
    """The run's seed, or a key derived from it."""

    phase: int
    """The number of the phase: each phase has its own order."""

    shuffle: bool = True
    """Whether each epoch has its own order; if not, all have the order of the dataset."""

    def indices(self, positions: Integers) -> Integers:
        """The samples at the positions: int64 of any shape to int64 of the same shape. They may span epochs.

        Raises ValueError for a negative position.
        """
        flat = _flat(positions, 2**63).view(np.int64)
        epochs = flat // self.n
        within = flat - epochs * self.n
        if self.shuffle:
            changes = epochs[np.diff(epochs, prepend=-1) != 0]  # few: np.unique of all would take longer than the rest
            for epoch in np.unique(changes).tolist():
                chosen = epochs == epoch
                within[chosen] = Permutation(self.n, key(self.seed, "order", self.phase, epoch))(within[chosen])
        return within.reshape(np.shape(positions))


def shard(batch_size: int, rank: int, world_size: int) -> range:
    """The part of every batch that a rank reads. It is contiguous, and the sizes of the parts differ by at most 1.
    Raises ValueError if a rank would get no sample."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not in 0 to {world_size - 1}")
    if batch_size < world_size:
        raise ValueError(f"batch_size {batch_size} is smaller than the world size {world_size}: it is the number of "
                         f"samples of all ranks in one step; use at most {batch_size} ranks or a batch_size of at "
                         f"least {world_size}")
    return range(batch_size * rank // world_size, batch_size * (rank + 1) // world_size)


def micro_batches(size: int, largest: int) -> list[range]:
    """Splits a rank's shard of `size` samples into as few micro-batches of at most `largest` samples as possible, with
    sizes that differ by at most 1. A micro-batch of one sample, which BatchNorm does not accept, occurs only for odd
    sizes with `largest` = 2, and for `largest` = 1. Raises ValueError unless both numbers are positive.
    """
    if size < 1 or largest < 1:
        raise ValueError(f"a shard of {size} samples cannot be split into micro-batches of at most {largest}")
    parts = -(-size // largest)
    return [range(size)] if parts == 1 else [shard(size, part, parts) for part in range(parts)]
