"""The order of samples, as arithmetic: no generator, no state, nothing to save.

A phase of training reads an endless stream of positions p = 0, 1, 2, ... over a set of n samples:

    epoch of p       p // n
    sample at p      Permutation(n, key(seed, "order", phase, p // n))(p % n)
    step of p        p // batch_size
    seed of p        keys(seed, "augment", phase, positions=p)

Ranks, loader workers and restarts only decide who works out which positions, so they cannot change the order, and to
resume is to go on counting. All of it is integer arithmetic, the same on every machine. Its values are pinned in
tests/data/test_order.py, because a run started with one version of this file may be resumed with another.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

LARGEST = 2**40
"""The most samples a permutation can order: sides of its rectangle then fit in 20 bits, and no product overflows."""

SMALL = 1024
"""Up to here a permutation is sorted, not computed: faster, exactly uniform, and a few kilobytes at most."""

ROUNDS = 6
"""Feistel rounds. From n = 1025 on, four fail tests of neighbouring positions and five pass; six leave a margin."""

# The increment and the multipliers of SplitMix64.
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(seed: int, *purpose: str | int) -> int:
    """Hash a seed and a purpose, such as ("order", phase, epoch), to an integer in [0, 2**64), which may seed in turn.

    The parts are encoded as in BitTorrent's bencode (BEP 3), 7 as `i7e` and "order" as `5:order`, so that no two lists
    of parts read alike, and hashed by BLAKE2b (RFC 7693). Integers may be negative and large.

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
    """Give each position a 64-bit word of its own, whatever block it comes in: int64 to uint64 of the same shape.

    No two positions share a word. Raises ValueError for a negative position.
    """
    return _splitmix(key(seed, *purpose), _words(positions, 2**63)).reshape(np.shape(positions))


def _splitmix(start: int, index: UInt64s) -> UInt64s:
    """Outputs number `index`, from 0, of the generator SplitMix64 seeded with `start`; a bijection of 64-bit words.

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


def _words(positions: Integers, end: int) -> UInt64s:
    """Flatten positions to unsigned words, whose arithmetic wraps around, and see that they lie in range(end)."""
    words = np.asarray(positions, dtype=np.int64).reshape(-1).view(np.uint64)
    if words.max(initial=0) >= end:  # a negative position reads as a huge word
        signed = words.view(np.int64)
        raise ValueError(f"positions {signed.min()} to {signed.max()} do not all lie in 0 to {end - 1}")
    return words


@dataclass(frozen=True)
class Permutation:
    """A bijection of range(n), chosen by a key: maps int64 positions of any shape to int64 values of that shape.

    It takes no memory to speak of at any n, and is fastest in blocks of some 8,000, which the processor's cache holds.

    It is the generalised Feistel cipher of Black and Rogaway, "Ciphers with arbitrary finite domains", 2002. A position
    is a cell of a rectangle of at least n cells, and each round shifts its row by a pseudo-random function of its
    column, then takes columns for rows. A cell past the end is sent through again until it lands inside ("cycle
    walking"). There are fewer than n + sqrt(n) + 1 cells, so this is rare; sides of powers of two would need up to 2n.
    """

    n: int
    """How many values are permuted, from 1 to 2**40."""

    key: int
    """Which permutation, in [0, 2**64)."""

    def __post_init__(self) -> None:
        if not 1 <= self.n <= LARGEST:
            raise ValueError(f"a permutation orders 1 to {LARGEST} samples, not {self.n}")

    def __call__(self, positions: Integers) -> Integers:
        """Values at the positions. Raises ValueError for a position outside range(n)."""
        cells = _words(positions, self.n)
        if self.n <= SMALL:  # short sides mix badly: at n = 16, six rounds leave pairs of neighbours 5 % off uniform
            return self._sorted[cells].reshape(np.shape(positions))
        cells = self._shuffle(cells)
        while (outside := cells >= self.n).any():
            cells[outside] = self._shuffle(cells[outside])
        return cells.view(np.int64).reshape(np.shape(positions))

    @cached_property
    def _sorted(self) -> Integers:
        """All values, in the order of random words. No two words are equal, so any sort gives the same."""
        return np.argsort(_splitmix(self.key, np.arange(self.n, dtype=np.uint64)))

    @cached_property
    def _round_keys(self) -> UInt64s:
        return _splitmix(self.key, np.arange(ROUNDS, dtype=np.uint64))

    def _shuffle(self, cells: UInt64s) -> UInt64s:
        """Send cells of the rectangle through the rounds.

        The round function takes the middle of a square, as Widynski, "Squares: a fast counter-based RNG", 2020, and
        scales these 32 bits to the side by a product, as Lemire, "Fast random integer generation in an interval", 2019.
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
            np.minimum(row, row - height, out=row)  # row % height without dividing: below 0 wraps to a huge word
            row, column = column, row
            height, width = width, height
        return row * width + column


@dataclass(frozen=True)
class Stream:
    """The samples of one phase in the order in which it reads them, epoch after epoch without end."""

    n: int
    """Samples in the set."""

    seed: int
    """The run's seed, or a key derived from it."""

    phase: int
    """Number of the phase; no two phases share an order."""

    shuffle: bool = True
    """Whether each epoch has an order of its own, or all have the order of the set."""

    def indices(self, positions: Integers) -> Integers:
        """The samples at the positions, int64 of any shape to int64 of that shape; a block may span epochs.

        Raises ValueError for a negative position.
        """
        flat = _words(positions, 2**63).view(np.int64)
        epochs = flat // self.n
        within = flat - epochs * self.n
        if self.shuffle:
            changes = epochs[np.diff(epochs, prepend=-1) != 0]  # few: np.unique of all would outlast the permutation
            for epoch in np.unique(changes).tolist():
                here = epochs == epoch
                within[here] = Permutation(self.n, key(self.seed, "order", self.phase, epoch))(within[here])
        return within.reshape(np.shape(positions))


@dataclass(frozen=True)
class Schedule:
    """How many steps a phase takes, which positions each step reads, and where epochs end.

    Step k, from 0, reads batch_size positions from k * batch_size on. An epoch boundary lies at every multiple of n; a
    last one lies at the phase's end, which may be within an epoch. A step rarely ends at a boundary: it passes it.
    """

    n: int
    """Samples in the set: the length of an epoch."""

    batch_size: int
    """Samples in a step, over all ranks."""

    epochs: float | Fraction
    """Length of the phase. A float counts as the nearest fraction of a denominator up to 10**9: 0.1 * 3 is 3/10."""

    def __post_init__(self) -> None:
        if self.n < 1 or self.batch_size < 1:
            raise ValueError(f"a phase needs samples and a batch, not n={self.n} and batch_size={self.batch_size}")
        if not 0 < self.epochs < math.inf:
            raise ValueError(f"a phase lasts some epochs or a part of one, not epochs={self.epochs}")

    @cached_property
    def samples(self) -> int:
        """Samples up to the last epoch boundary; a part of a sample counts as one."""
        return max(1, math.ceil(Fraction(self.epochs).limit_denominator(10**9) * self.n))

    @property
    def steps(self) -> int:
        """Steps of the phase: its last is the first to end at or past the last epoch boundary."""
        return -(-self.samples // self.batch_size)

    @property
    def overshoot(self) -> int:
        """Samples that the last step reads past the last epoch boundary, fewer than a batch."""
        return self.steps * self.batch_size - self.samples

    def positions(self, step: int) -> range:
        """Positions that a step reads, to be sliced by a rank's shard. Raises ValueError if there is no such step."""
        if not 0 <= step < self.steps:
            raise ValueError(f"step {step} does not lie in 0 to {self.steps - 1}")
        return range(step * self.batch_size, (step + 1) * self.batch_size)

    def epoch(self, position: int) -> int:
        """The epoch, from 0, to which a position belongs."""
        return position // self.n

    def epochs_after(self, steps: int) -> int:
        """How many whole epochs so many steps complete, those of the overshoot not counted."""
        return min(steps * self.batch_size, self.samples) // self.n

    def steps_until(self, epochs: int) -> int:
        """How many steps it takes to pass the boundary of so many epochs, or the last one if that comes first."""
        return -(-min(epochs * self.n, self.samples) // self.batch_size)

    def is_epoch_boundary(self, step: int) -> bool:
        """Whether a step passes an epoch boundary; a batch larger than the set passes several at once."""
        return step == self.steps - 1 or self.epochs_after(step + 1) > self.epochs_after(step)


def shard(batch_size: int, rank: int, world_size: int) -> range:
    """The part of every batch that a rank reads: contiguous, and no two ranks' parts differ by more than a sample.

    Raises ValueError if a rank would be left without a sample.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} does not lie in 0 to {world_size - 1}")
    if batch_size < world_size:
        raise ValueError(
            f"batch_size {batch_size} is too small for {world_size} ranks: it counts the samples of all ranks in one "
            f"step, and each needs one; use at most {batch_size} ranks or a batch_size of at least {world_size}"
        )
    return range(batch_size * rank // world_size, batch_size * (rank + 1) // world_size)


def micro_batches(size: int, largest: int) -> list[range]:
    """Cut a rank's shard of `size` samples into as few parts as `largest` allows, as equal as can be.

    A part of one sample, which BatchNorm cannot take, is left only by odd shards in twos and by `largest` = 1.
    Raises ValueError unless both numbers are positive.
    """
    if size < 1 or largest < 1:
        raise ValueError(f"a shard of {size} samples cannot be cut into micro-batches of at most {largest}")
    parts = -(-size // largest)
    return [shard(size, part, parts) for part in range(parts)]
