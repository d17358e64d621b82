"""When a job's time limit ends, and when its ranks must stop before that.

SLURM is asked again, because the end moves: users and administrators change time limits, and SLURM postpones the end of
a job that it suspends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.slurm.grace import grace_seconds

CHECK_SECONDS = 60.0
"""Seconds after which SLURM is asked again."""
RECHECK_SECONDS = 5.0
"""The same if the ranks have to stop or to end now, as far as is known."""
REQUEUE_SECONDS = 5.0
"""Seconds before the end in which ranks that have not saved are killed, so that the job can be requeued."""

SUSPENDED_SECONDS = 10.0
"""A pause between two checks that is longer than this was a suspension of the job."""


@dataclass
class TimeLimit:
    """The time limit, and the suspensions, during one attempt."""

    ask: Callable[[float], float]
    """Returns the end of the time limit in seconds since 1970, infinity without one; given the end as it was known,
    which it returns if SLURM does not answer."""
    run: RunDir
    shortest: int
    """The seconds that a stop may take, at least: `signal_seconds` of the profile."""
    end: float = float("inf")
    """The end as it was last known."""
    began: float = field(default_factory=time.time)
    asked: float = float("-inf")
    """When SLURM was last asked, on the monotonic clock."""
    grace: float = 0.0
    """How many seconds before the end the ranks are asked to stop; no more than half of what the attempt has."""

    suspended: float = 0.0
    """Seconds for which the job was suspended in this attempt."""

    def must_stop(self) -> bool:
        """Whether it is time to save."""
        return self.is_over() or (self.left() < self.grace and self.left(again=True) < self.grace)

    def is_over(self) -> bool:
        """Whether the ranks must be killed now."""
        return self.left() < REQUEUE_SECONDS and self.left(again=True) < REQUEUE_SECONDS

    def sleep(self, seconds: float) -> None:
        """Waits for the next check. It takes much longer only if this process is stopped meanwhile, with all others of
        the job."""
        before = time.monotonic()
        time.sleep(seconds)
        if (passed := time.monotonic() - before) > SUSPENDED_SECONDS:
            self.suspended += passed

    def left(self, *, again: bool = False) -> float:
        """The seconds until the end, as SLURM said it within the last minute; within the last seconds if it is asked
        `again`."""
        if time.monotonic() - self.asked > (RECHECK_SECONDS if again else CHECK_SECONDS):
            self.end = self.ask(self.end)
            self.asked = time.monotonic()
            self.grace = grace_seconds(self.run, self.shortest, self.end - self.began)
        return self.end - time.time()
