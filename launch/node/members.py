"""Which nodes of a job take part in its attempts: all of them, or with `launch.min_nodes` those that are left.

A node on which a check fails, that does not connect to the others in time, or whose hardware fails twice is left out of
the next attempt. Its launcher stays, and checks the node again from time to time. Once the node can take part again,
the ranks save at their next step, and the next attempt has it back. A node that SLURM has lost has no launcher any
more, and is back when the job starts again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan, Topology
from drumbeat.configs.run.records import AttemptStart, Verdict
from drumbeat.launch.node.checks import find
from drumbeat.launch.slurm.job import SlurmJob

CHECK_SECONDS, LONGEST_SECONDS = 60.0, 3600.0
"""Seconds until a node that was left out is checked again: doubled each time it is left out, up to the longest."""
WIDEN_SECONDS = 600.0
"""Seconds of an attempt before it is ended for more nodes, so that a node that comes and goes costs little time."""
POLL_SECONDS = 0.5

T = TypeVar("T")


@dataclass
class Members:
    """The nodes that take part, as one launcher knows them."""

    plan: JobPlan
    total: int
    """The number of nodes of the job that have launchers."""
    numbers: tuple[int, ...] = ()
    """Those that take part, in their order. The first of them decides for all."""
    times_left_out: int = 0
    """How often this node was left out."""

    def __post_init__(self) -> None:
        self.numbers = self.numbers or tuple(range(self.total))

    @classmethod
    def of(cls, plan: JobPlan, slurm_job: SlurmJob | None) -> Members:
        """All nodes that the job has: no fewer than the plan's, unless it allows that."""
        nodes = plan.topology.nodes
        have = slurm_job.nodes if plan.topology.min_nodes and slurm_job and slurm_job.nodes else nodes
        return cls(plan, min(nodes, have))

    @property
    def topology(self) -> Topology:
        """The processes of the attempt."""
        return self.plan.topology.on(len(self.numbers))

    @property
    def attempt_plan(self) -> JobPlan:
        """The plan on these nodes."""
        return replace(self.plan, topology=self.topology)

    @property
    def spare(self) -> int:
        """With how many nodes fewer the run can go on."""
        return len(self.numbers) - self.plan.topology.least_nodes

    @property
    def are_all(self) -> bool:
        """Whether no node of the job is left out."""
        return len(self.numbers) == self.total

    def place(self, node: int) -> int:
        """The place of a node in the attempt; -1 if it does not take part."""
        return self.numbers.index(node) if node in self.numbers else -1

    def join(self, attempt: Attempt) -> None:
        """Takes the nodes that take part in an attempt, which another launcher has claimed, from its record."""
        self.numbers = AttemptStart.require(attempt.launch).members or self.numbers

    def follow(self, verdict: Verdict) -> None:
        """Takes the nodes that take part in the next attempt from the verdict of the last one."""
        self.numbers = tuple(number for number in range(self.total) if number not in verdict.left_out)

    def left_out(self, attempt: Attempt, lost: Collection[int]) -> tuple[int, ...]:
        """The nodes that the next attempt leaves out: those that it has `lost`, by their places in the attempt, and
        those that were left out and cannot take part again yet."""
        absent = {number for number in range(self.total) if number not in self.numbers}
        ready = {number for number in absent if attempt.node_ready(number).exists()}
        return tuple(sorted(absent - ready | {self.numbers[place] for place in lost}))

    def wait(self, run: RunDir, attempt: Attempt, node: int) -> Verdict:
        """The launcher of a node that was left out: waits for the end of the attempt, and says as soon as the node can
        take part again. Returns the verdict. It raises nothing, because SLURM would end the launchers of all nodes."""
        seconds = min(CHECK_SECONDS * 2 ** self.times_left_out, LONGEST_SECONDS)
        self.times_left_out += 1
        check_at, ready = time.monotonic() + seconds, False
        while (verdict := seen(lambda: Verdict.read(attempt.verdict))) is None:
            if not ready and time.monotonic() > check_at:
                with suppress(OSError):  # as in `seen`
                    if find(run, self.plan, attempt.verdict.exists) is None:
                        attempt.report_ready(node)
                        ready = True
                check_at = time.monotonic() + seconds
            time.sleep(POLL_SECONDS)
        self.follow(verdict)
        return verdict


def seen(read: Callable[[], T | None]) -> T | None:
    """What is read from the run's folder; None if its disk does not answer on this node, which says nothing about the
    run."""
    try:
        return read()
    except (DamagedError, OSError):
        return None
