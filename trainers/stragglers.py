"""Finds a rank that is slower than the others, which then wait for it in each step.

About every two seconds rank 0 collects the times of all ranks (`step_times.py`). In each of these intervals it compares
the own time of each rank, for data and computation, with the median of all ranks; a rank with more samples than the
median may take longer in proportion. The rank is late if the others wait for it for 30% of the time, and slow if it is
late in most of the intervals of 20 seconds; so neither a single long step nor a short disturbance counts. 30% is the
default threshold of NVIDIA's resiliency extension, which compares with the fastest rank (a score of 0.7).

On a machine that other programs use as well, the time without a core hides other causes and is unequal by chance. So
ranks are compared twice, without this time and with it. Measured by `python -m benchmarks.stragglers` on two cores
with a load of 5 to 30: the rank is named in 20 of 20 runs with a stopped rank, after 20 s (median; 38 s at most), and
in none of 50 clean runs, in which a rank is late in 40% of the intervals at most.

It does not see: all ranks equally slow, time that a rank loses outside of its steps (rank 0 saves and writes curves),
and a slow network, for which all ranks wait. Of several slow ranks it names the slowest, and the next one after that.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.bad_nodes import remember_all
from drumbeat.configs.run.files import write_soon
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.processes import node_name
from drumbeat.configs.run.rank_records import Part, RankTimes, SlowRank
from drumbeat.configs.run.records import AttemptStart
from drumbeat.trainers.step_times import Times
from drumbeat.trainers.tracking import NullTracker, Tracker
from drumbeat.trainers.world import World

WINDOW_SECONDS = 20.0
LEAST_INTERVALS = 3
"""A window is longer than `WINDOW_SECONDS` if steps are so long that it would hold fewer intervals."""
LATE = 0.3
"""A rank is late in an interval if the others wait for it for this part of the time."""
BEGINS, ENDS = 0.7, 0.3
"""A rank becomes slow if it is late in this part of the intervals, and remains so until it is in less than that."""
REMEMBER_SECONDS = 600.0
"""A node is remembered as a bad one if a rank on it is slow for so long."""
MOST_SLOW = 100
"""The number of slow ranks that the record keeps."""
NAME_BYTES = 64
"""The longest host name on Linux (HOST_NAME_MAX)."""


@dataclass(frozen=True, kw_only=True)
class Slowest:
    """The rank for which the others wait most."""

    rank: int
    part: Part
    share: float
    """The part of the time for which they wait, in the median interval."""
    late: float
    """The part of the intervals in which it is late."""


def slowest(intervals: Sequence[Tensor], stays: int | None = None) -> Slowest:
    """The slowest rank of several intervals: that which is late most often. Of each interval, [ranks, 5] are the fields
    of `Times`. A rank that `stays` is the slowest until it is late in less than `ENDS` of the intervals."""
    data, compute, cores, wait, samples = torch.stack([*intervals]).double().unbind(-1)  # each [intervals, ranks]
    allowed = (samples / _median(samples).clamp(min=1)).clamp(min=1)
    busy = data + compute
    share = torch.maximum(*((own - allowed * _median(own)) / (own + wait).clamp(min=1e-9)
                            for own in (busy, busy + cores)))
    late = (share >= LATE).double().mean(0)
    rank = int((late + share.mean(0).clamp(0, 1) / len(intervals)).argmax())  # at a tie, that with the larger share
    if stays is not None and late[stays] >= ENDS:
        rank = stays
    parts: dict[Part, Tensor] = {"data": data, "compute": compute, "cores": cores}
    more = {name: float((part - allowed * _median(part))[:, rank].sum()) for name, part in parts.items()}
    return Slowest(rank=rank, part=max(more, key=lambda name: more[name]), share=float(share[:, rank].median()),
                   late=float(late[rank]))


def _median(values: Tensor) -> Tensor:
    """[intervals, 1]: the median over the ranks; of an even number, the lower one, so that with two ranks a slow one is
    compared with the other."""
    return values.median(dim=1, keepdim=True).values


class Stragglers:
    """Names slow ranks, in an attempt of a run."""

    def __init__(self, world: World, attempt: Attempt, tracker: Tracker | NullTracker) -> None:
        self.world = world
        self.run = RunDir(attempt.path.parent.parent)
        self.attempt = attempt
        self.tracker = tracker
        self.nodes: list[str] = []
        """The host name of each rank; known to rank 0 after the first `exchange`."""
        self.intervals: deque[tuple[float, Tensor]] = deque()
        """When each ended, and the times of its ranks."""
        self.began = time.monotonic()
        self.drawn = self.began
        """When the last points were drawn."""
        self.slow: tuple[SlowRank, ...] = ()
        self.slow_seconds = 0.0
        """For how long the rank that is slow now has been so, in steps: not in evaluations, pauses or suspensions."""
        self.remembered: set[str] = set()
        """The nodes that the next jobs leave out because of this attempt."""

    def exchange(self, times: Times, step: int) -> None:
        """Rank 0 collects the times of all ranks since the last call. All ranks call it, before `step`."""
        if not self.nodes:
            name = node_name().encode()[:NAME_BYTES].ljust(NAME_BYTES, b"\0")
            names = self.world.gather(torch.tensor(list(name), dtype=torch.uint8))
            self.nodes = [bytes(one.tolist()).rstrip(b"\0").decode(errors="replace") for one in names] or [""]
        if parts := self.world.gather(torch.tensor(times, dtype=torch.float64)):
            self._add(torch.stack(parts), step)

    def _add(self, table: Tensor, step: int) -> None:
        now = time.monotonic()
        if float(table[:, 4].sum()) == 0:  # the device has not ended a step
            return
        self.slow_seconds += min(now - self.intervals[-1][0], WINDOW_SECONDS) if self.intervals else 0.0
        self.intervals.append((now, table))
        while len(self.intervals) > LEAST_INTERVALS and self.intervals[0][0] < now - WINDOW_SECONDS:
            self.intervals.popleft()
        tables = [one for _, one in self.intervals]
        current = self.slow[-1] if self.slow and self.slow[-1].until is None else None
        found = slowest(tables, current.rank if current else None)
        full = now - self.began >= WINDOW_SECONDS and len(tables) >= LEAST_INTERVALS
        changed = self._ends(current, found) if current else full and self._begins(found, step)
        if current and not changed:
            self._remember(current)
        if changed or now - self.drawn >= WINDOW_SECONDS:
            self.drawn = now
            self.tracker.scalars(step, {"speed/slowest_rank": found.rank,
                                             "speed/wait_for_slowest_rank": max(0.0, found.share)})
        data, compute, cores, wait, _ = (tuple(round(value, 3) for value in part)
                                  for part in torch.stack(tables).sum(0).T.tolist())
        record = RankTimes(step=step, data=data, compute=compute, cores=cores, wait=wait, slow=self.slow)
        write_soon(self.attempt.ranks, json.dumps(record.as_json()) + "\n", 0)

    def _begins(self, found: Slowest, step: int) -> bool:
        """Whether this rank has become slow."""
        if found.late < BEGINS:
            return False
        slow = SlowRank(rank=found.rank, node=self.nodes[found.rank], part=found.part, share=found.share, step=step,
                        time=time.time())
        self.slow = (*self.slow, slow)[-MOST_SLOW:]
        self.slow_seconds = 0.0
        print(f"slow       {slow.message}", flush=True)
        return True

    def _ends(self, current: SlowRank, found: Slowest) -> bool:
        """Whether the slow rank is slow no longer."""
        if found.rank == current.rank and found.late >= ENDS:
            return False
        self.slow = (*self.slow[:-1], replace(current, until=time.time()))
        print(f"slow       rank {current.rank} on {current.node} is as fast as the others again", flush=True)
        return True

    def _remember(self, slow: SlowRank) -> None:
        """Remembers the node of a rank that has been slow for long, so that the next jobs leave it out; only on SLURM,
        and only because of its computation: data may be slow, and cores missing, for another reason."""
        if self.slow_seconds < REMEMBER_SECONDS or slow.part != "compute" or slow.node in self.remembered:
            return
        self.remembered.add(slow.node)
        start = AttemptStart.read(self.attempt.launch)
        if start and start.on_slurm:
            remember_all(self.run, {slow.node: slow.message}, time.time())
