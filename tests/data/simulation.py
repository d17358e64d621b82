"""A run without a model: which rank reads which samples in each step, over stops, crashes and changes of world size.

`simulate` uses data/order.py, and the streams of data/sampling.py, as a trainer does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from drumbeat.data.order import Stream, micro_batches, shard
from drumbeat.data.sampling import SampleStream
from drumbeat.data.schedule import Schedule


@dataclass(frozen=True)
class Attempt:
    """One attempt of a run, from its start to its end."""

    world_size: int
    """Ranks in this attempt; the next may have more or fewer."""

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
        """All (position, index) pairs over ranks and micro-batches, sorted: they do not depend on the world size."""
        return sorted(pair for rank in self.reads for part in rank for pair in part)


def simulate(
    phases: Sequence[Schedule], seed: int, attempts: Sequence[Attempt], largest: int,
    streams: Callable[[int, int, int], SampleStream] = Stream,
) -> Iterator[Step]:
    """Run the phases to their end, the last attempt without a stop. Steps lost in a crash are repeated.

    `streams` makes the stream of (n, seed, phase). The one thing carried from an attempt to the next is how many steps
    are done, as (phase, step) is in a checkpoint.
    """
    calendar = [(phase, step) for phase, table in enumerate(phases) for step in range(table.steps)]
    done = 0
    for number, attempt in enumerate(attempts):
        final = number == len(attempts) - 1
        end = len(calendar) if final else min(done + attempt.steps, len(calendar))
        for phase, step in calendar[done:end]:
            table = phases[phase]
            stream = streams(table.n, seed, phase)
            ranks = range(attempt.world_size)
            yield Step(phase, step, number, [_read(table, stream, step, largest, r, len(ranks)) for r in ranks])
        done = max(done, end - attempt.lost)


def _read(
    table: Schedule, stream: SampleStream, step: int, largest: int, rank: int, world_size: int
) -> list[list[tuple[int, int]]]:
    mine = shard(table.batch_size, rank, world_size)
    positions = table.positions(step)[mine.start : mine.stop]
    pairs = list(zip(positions, stream.indices(np.array(positions)).tolist(), strict=True))
    return [pairs[part.start : part.stop] for part in micro_batches(len(pairs), largest)]
