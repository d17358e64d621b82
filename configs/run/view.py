"""The state of a run at one moment: each file is read once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.checkpoint_records import ConfigChange
from drumbeat.configs.run.file_times import file_system_time, modified
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.rank_records import RankTimes, SlowRank
from drumbeat.configs.run.records import ENDED, AttemptStart, BackendName, Heartbeat, Job, Result, State, Status
from drumbeat.configs.run.versions import AttemptVersions


@dataclass(frozen=True, kw_only=True)
class View:
    """What a command knows about a run."""

    run: RunDir
    plan: JobPlan
    job: Job | None
    status: Status | None
    attempt: Attempt | None
    """The newest attempt."""
    heartbeat: Heartbeat | None
    """The heartbeat of the newest attempt that has one: after a restart, the progress before it."""
    ranks: RankTimes | None
    """Of the newest attempt."""
    result: Result | None
    versions: AttemptVersions | None
    """Of the newest attempt that has some."""
    fork: Fork | None = None
    """The run that it was forked from."""

    @classmethod
    def read(cls, run: RunDir) -> View:
        """Reads the run's files. Raises `DamagedError` if a file is damaged or the plan is missing."""
        attempts = run.all_attempts()
        return cls(run=run, plan=JobPlan.require(run.plan), job=Job.read(run.job), status=Status.read(run.status),
                   attempt=attempts[-1] if attempts else None, heartbeat=_newest_heartbeat(attempts),
                   ranks=RankTimes.read(attempts[-1].ranks) if attempts else None,
                   result=Result.read(run.result),
                   versions=_newest_versions(attempts), fork=Fork.read(run.fork))

    @property
    def number(self) -> int:
        """The number of the newest attempt; -1 before the first."""
        return self.attempt.number if self.attempt else -1

    @property
    def backend(self) -> BackendName:
        """The backend that started the run last."""
        return self.job.backend if self.job else self.plan.backend

    @property
    def state(self) -> State | None:
        """The run's state; None without a status.json."""
        if self.status is None:
            return None
        paused = self.status.state == "running" and self.heartbeat is not None and self.heartbeat.pause_reason
        return "paused" if paused else self.status.state

    @property
    def verdict(self) -> str:
        """The reason for the state, in one line; may be ''."""
        if self.state == "paused" and self.heartbeat:
            return self.heartbeat.pause_reason
        return self.status.verdict if self.status else ""

    @property
    def slow_rank(self) -> SlowRank | None:
        """The rank for which the others wait at present."""
        slow = self.ranks.slow if self.ranks and self.state == "running" else ()
        return slow[-1] if slow and slow[-1].until is None else None

    @property
    def changes(self) -> tuple[ConfigChange, ...]:
        """What resumes have changed in the run's config, as far as attempts have taken it."""
        return self.heartbeat.changes if self.heartbeat else ()

    @property
    def world_size(self) -> int:
        """The number of ranks of the newest attempt, which may be fewer than planned; as planned before the first."""
        start = AttemptStart.read(self.attempt.launch) if self.attempt else None
        return (start and start.ranks) or self.plan.topology.world_size

    @property
    def ended(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self.state in ENDED

    @property
    def last_heartbeat(self) -> float:
        """When the run last wrote its status or heartbeat, in seconds since 1970; 0 if it never did."""
        return max((record.time for record in (self.status, self.heartbeat) if record), default=0.0)

    def seconds_since_heartbeat(self) -> float:
        """Seconds since the run last wrote its status or heartbeat. Both moments are those of the run folder's file
        system, so the clocks of the node and of this machine may differ."""
        beats = (attempt.heartbeat for attempt in reversed(self.run.all_attempts()))
        written = [*filter(None, map(modified, (self.run.status, *beats)))][:2]
        return max(0.0, file_system_time(self.run.path) - max(written, default=0.0))


def _newest_versions(attempts: list[Attempt]) -> AttemptVersions | None:
    return next(filter(None, (AttemptVersions.read(one.versions) for one in reversed(attempts))), None)


def _newest_heartbeat(attempts: list[Attempt]) -> Heartbeat | None:
    """The newest heartbeat, with the newest training loss. The speed, remaining time, GPU memory and pause of an older
    attempt are left out: they no longer apply."""
    newest: Heartbeat | None = None
    for attempt in reversed(attempts):
        beat = Heartbeat.read(attempt.heartbeat)
        if beat and attempt != attempts[-1]:
            beat = replace(beat, pause_reason="", samples_per_second=None, eta_seconds=None, gpu={})
        newest = replace(newest, loss=beat.loss) if newest and beat else newest or beat
        if newest and newest.loss is not None:
            break
    return newest
