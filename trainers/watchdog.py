"""Ends a rank that hangs, after writing down where: the stacks of all its threads, into the attempt's folder.

When one rank hangs, the others soon wait for it, so all of them come to this; whose stack stands outside every wait for
others is the one they waited for (`launch.verdict` looks). `faulthandler` writes from a thread in C, and the kernel
ends the process by SIGALRM: both work where Python is stuck.
"""

from __future__ import annotations

import faulthandler
import math
import signal
import time

from configs.rundir import Attempt

SHORTEST = 1800.0
"""Seconds without a sign of life, unless the config says otherwise: longer than a run pauses for its disk."""
GRACE = 5.0
"""Seconds from the stacks to the end, so that no rank is ended before the last has written."""
STEPS = 50
"""A step may take so many times as long as the longest one before it."""


class Watchdog:
    """`pet` it at every sign of life. `seconds` of silence are a hang; None leaves it to what steps take, and infinity
    to whoever sits at a debugger."""

    def __init__(self, attempt: Attempt, rank: int, seconds: float | None) -> None:
        self.file = attempt.stacks(rank).open("w")
        self.seconds = seconds
        self.longest = 0.0
        self.petted = time.monotonic()
        self.armed = 0.0

    @property
    def patience(self) -> float:
        """Seconds until silence counts as a hang."""
        return self.seconds if self.seconds is not None else max(SHORTEST, STEPS * self.longest)

    def pet(self) -> None:
        """A sign of life. Cheap: the alarm is wound up again once a second, or as often as a tenth of its time."""
        now = time.monotonic()
        self.longest = max(self.longest, now - self.petted)
        self.petted = now
        if now - self.armed > min(1.0, self.patience / 10) and self.patience < math.inf:
            self.armed = now
            faulthandler.dump_traceback_later(self.patience, file=self.file)
            signal.setitimer(signal.ITIMER_REAL, self.patience + GRACE)

    def close(self) -> None:
        """No alarm any more."""
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.file.close()
