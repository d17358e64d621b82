"""A run as its folder tells at one moment: each file is read once."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import ENDED, Heartbeat, Job, Result, State, Status, Where


@dataclass(frozen=True, kw_only=True)
class View:
    """What a command knows of a run. Reading it raises `DamagedError` where a file is damaged, or the plan missing."""

    run: RunDir
    plan: JobPlan
    job: Job | None
    status: Status | None
    attempt: Attempt | None
    """The newest one."""
    heartbeat: Heartbeat | None
    """Of the newest attempt that has one: a run that is restarting has progressed as far as before."""
    result: Result | None

    @classmethod
    def read(cls, run: RunDir) -> View:
        """The run as it is now."""
        attempts = run.all_attempts()
        return cls(run=run, plan=JobPlan.require(run.plan), job=Job.read(run.job), status=Status.read(run.status),
                   attempt=attempts[-1] if attempts else None, heartbeat=_newest_heartbeat(attempts),
                   result=Result.read(run.result))

    @property
    def number(self) -> int:
        """The newest attempt's; -1 before the first."""
        return self.attempt.number if self.attempt else -1

    @property
    def where(self) -> Where:
        """Where the run was started last."""
        return self.job.where if self.job else self.plan.where

    @property
    def state(self) -> State | None:
        """The run's state; None where nothing tells."""
        if self.status is None:
            return None
        waits = self.status.state == "running" and self.heartbeat is not None and self.heartbeat.paused
        return "paused" if waits else self.status.state

    @property
    def verdict(self) -> str:
        """Why it is in this state, in a line; '' where there is nothing to say."""
        if self.state == "paused" and self.heartbeat:
            return self.heartbeat.paused
        return self.status.verdict if self.status else ""

    @property
    def ended(self) -> bool:
        """Whether the run has come to an end, of which kind ever."""
        return self.state in ENDED

    @property
    def heard(self) -> float:
        """When the run last gave a sign of life, in seconds since 1970; 0 where it never did."""
        return max((record.time for record in (self.status, self.heartbeat) if record), default=0.0)

    def silence(self) -> float:
        """Seconds since then."""
        return max(0.0, time.time() - self.heard)


def _newest_heartbeat(attempts: list[Attempt]) -> Heartbeat | None:
    """The newest heartbeat, with the training loss of the newest one that has a loss. An earlier attempt's speed, time
    left, GPU memory and pause are of the past: they are left out."""
    newest: Heartbeat | None = None
    for attempt in reversed(attempts):
        beat = Heartbeat.read(attempt.heartbeat)
        if beat and attempt != attempts[-1]:
            beat = replace(beat, paused="", samples_per_second=None, eta_seconds=None, gpu={})
        newest = replace(newest, loss=beat.loss) if newest and beat else newest or beat
        if newest and newest.loss is not None:
            break
    return newest
