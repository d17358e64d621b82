"""A run without a model: who reads what in each step, over stops, crashes and changes of width.

`simulate` uses data/order.py as a trainer does. Below it stand four streams that Drumbeat does not have yet, each a
pure function of position or step: the experiment that decided what data/order.py offers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from data.order import Integers, Permutation, Stream, Timetable, key, keys, micro_batches, share


@dataclass(frozen=True)
class Attempt:
    """One life of a run, from its start to its end by whatever cause."""

    world_size: int
    """Ranks in this life; the next may have more or fewer."""

    steps: int
    """Steps it takes before it is stopped, unless the run is done first."""

    lost: int = 0
    """Its last steps that no checkpoint holds: 0 after a clean stop, more after a crash."""


@dataclass(frozen=True)
class Step:
    """What one step read."""

    phase: int
    step: int
    attempt: int
    reads: list[list[list[tuple[int, int]]]]
    """For each rank, for each of its micro-batches: the (position, index) pairs."""

    def samples(self) -> list[tuple[int, int]]:
        """All (position, index) pairs over ranks and micro-batches, sorted: what a step is, whoever took it."""
        return sorted(pair for rank in self.reads for part in rank for pair in part)


def simulate(phases: Sequence[Timetable], seed: int, attempts: Sequence[Attempt], largest: int) -> Iterator[Step]:
    """Run the phases to their end, the last attempt without a stop; steps lost in a crash come out again.

    The one thing carried from an attempt to the next is how many steps are done, as (phase, step) is in a checkpoint.
    """
    calendar = [(phase, step) for phase, table in enumerate(phases) for step in range(table.steps)]
    done = 0
    for number, attempt in enumerate(attempts):
        final = number == len(attempts) - 1
        end = len(calendar) if final else min(done + attempt.steps, len(calendar))
        for phase, step in calendar[done:end]:
            table = phases[phase]
            stream = Stream(table.n, seed, phase)
            ranks = range(attempt.world_size)
            yield Step(phase, step, number, [_read(table, stream, step, largest, r, len(ranks)) for r in ranks])
        done = max(done, end - attempt.lost)


def _read(
    table: Timetable, stream: Stream, step: int, largest: int, rank: int, world_size: int
) -> list[list[tuple[int, int]]]:
    mine = share(table.batch_size, rank, world_size)
    positions = table.positions(step)[mine.start : mine.stop]
    pairs = list(zip(positions, stream.indices(np.array(positions)).tolist(), strict=True))
    return [pairs[part.start : part.stop] for part in micro_batches(len(pairs), largest)]


# Weighted: every position draws anew, with replacement.


@dataclass(frozen=True)
class AliasTable:
    """Draws from n weights in constant time: Walker 1977, built as in Vose, "A linear algorithm ...", 1991."""

    total: int
    thresholds: Integers
    """Of `total` parts of column i, how many belong to sample i itself."""

    others: Integers
    """To which sample the rest of column i belongs."""

    @classmethod
    def build(cls, weights: Sequence[int]) -> AliasTable:
        """Weights are integers, so that the table holds them exactly."""
        n, total = len(weights), sum(weights)
        left = [weight * n for weight in weights]
        others = list(range(n))
        thresholds = [total] * n
        poor = [i for i in range(n) if left[i] < total]
        rich = [i for i in range(n) if left[i] >= total]
        while poor:
            i, j = poor.pop(), rich[-1]
            thresholds[i], others[i] = left[i], j
            left[j] -= total - left[i]
            if left[j] < total:
                poor.append(rich.pop())
        return cls(total, np.array(thresholds), np.array(others))

    def probabilities(self) -> list[Fraction]:
        """The chance of each sample, exactly."""
        n = len(self.others)
        chances = [Fraction(0)] * n
        for i, (threshold, other) in enumerate(zip(self.thresholds.tolist(), self.others.tolist(), strict=True)):
            chances[i] += Fraction(threshold, self.total * n)
            chances[other] += Fraction(self.total - threshold, self.total * n)
        return chances

    def indices(self, seed: int, phase: int, positions: Integers) -> Integers:
        """The sample at each position: the upper half of its key picks a column, the lower half one of its two."""
        words = keys(seed, "weighted", phase, positions=positions)
        columns = (words >> 32) * len(self.others) >> 32
        coins = (words & 0xFFFFFFFF) * self.total >> 32
        return np.where(
            coins < self.thresholds[columns].astype(np.uint64), columns.astype(np.int64), self.others[columns]
        )


# Class-balanced: classes take turns, and each has its own epochs.


def class_balanced(members: Sequence[Integers], seed: int, phase: int, positions: Integers) -> Integers:
    """The sample at each position: class p mod C, and within it an order of its own in every round."""
    classes = len(members)
    indices = np.empty_like(positions)
    for label, samples in enumerate(members):
        here = positions % classes == label
        stream = Stream(len(samples), key(seed, "class", label), phase)
        indices[here] = samples[stream.indices(positions[here] // classes)]
    return indices


# Length windows: batches of similar lengths, without padding a short sample to a long one's size.


def window_batch(
    table: Timetable, stream: Stream, lengths: Integers, batches: int, step: int, rank: int, world_size: int
) -> Integers:
    """Positions that a rank reads in a step, of a window of `batches` batches sorted by length and dealt out at random.

    The last window of the phase is shorter, so it never reads past the phase's last step. A rank takes every
    world_size-th position of its sorted batch, so that ranks read like lengths and wait little for each other.
    """
    first = step - step % batches
    last = min(first + batches, table.steps)
    window = np.arange(table.positions(first).start, table.positions(last - 1).stop)
    by_length = window[np.argsort(lengths[stream.indices(window)], kind="stable")].reshape(
        last - first, table.batch_size
    )
    deal = Permutation(last - first, key(stream.seed, "window", stream.phase, first))
    return by_length[deal(np.array(step - first))][rank::world_size]


# Mixup: every sample of a batch is blended with another of it.


def mixup_partners(table: Timetable, seed: int, phase: int, step: int, positions: Integers) -> Integers:
    """Partner of each position of a step: each sample of the global batch is the partner of exactly one."""
    first = table.positions(step).start
    return first + Permutation(table.batch_size, key(seed, "mixup", phase, step))(positions - first)
