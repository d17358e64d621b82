"""Ends a rank that hangs, after writing down where: the stacks of all its threads, into the attempt's folder.

When one rank hangs, the others soon wait for it, so all of them come to this; the one that stands at the earliest
place of the program is the one they wait for (`launch/attempts/hang.py` compares). Stacks alone do not tell the step,
so each sign of life writes it ahead of them. `faulthandler` writes from a thread in C, and the kernel ends the process
by SIGALRM: both work where Python is stuck.
"""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import time
from contextlib import suppress

from drumbeat.configs.patience import GRACE
from drumbeat.configs.run.folder import Attempt
from drumbeat.trainers.world import limit_waits

STEPS = 50
"""A step may take so many times as long as the longest one before it."""
STEP = b"step %12d\n"
"""The first line of a rank's stacks."""


class Watchdog:
    """`pet` it at every sign of life."""

    def __init__(self, attempt: Attempt, rank: int, shortest: float, *, grows: bool = False) -> None:
        """`shortest` is the patience in seconds, infinity where somebody sits at a debugger; with `grows`, it becomes
        longer where steps are slow."""
        self.file = attempt.stacks(rank).open("wb", buffering=0)
        self.shortest = shortest
        self.grows = grows
        self.longest = 0.0
        self.petted = time.monotonic()
        self.armed = 0.0
        self.limit = 0.0
        """The patience that the process group knows of."""

    @property
    def patience(self) -> float:
        """Seconds until silence counts as a hang."""
        return max(self.shortest, STEPS * self.longest) if self.grows else self.shortest

    def pet(self, step: int) -> None:
        """A sign of life at the run's step number `step`. Cheap: a write of a few bytes, some microseconds; the alarm
        is set again once a second, or as often as a tenth of its time."""
        now = time.monotonic()
        self.longest = max(self.longest, now - self.petted)
        self.petted = now
        if self.patience == math.inf:
            return
        line = STEP % step
        with suppress(OSError):  # the disk is full or gone: the stacks will lack the step
            os.pwrite(self.file.fileno(), line, 0)
        if now - self.armed > min(1.0, self.patience / 10):
            self.armed = now
            self._arm(len(line))

    def _arm(self, start: int) -> None:
        """Sets the alarm; the stacks are to begin at byte `start`."""
        with suppress(OSError):
            if self.file.tell() != start:  # the first time, or this rank has come back to life after its stacks
                self.file.truncate(start)
                self.file.seek(start)
        if self.limit != self.patience:
            self.limit = self.patience
            limit_waits(self.patience)
        faulthandler.dump_traceback_later(self.patience, file=self.file)
        signal.setitimer(signal.ITIMER_REAL, self.patience + GRACE)

    def close(self) -> None:
        """No alarm any more."""
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.file.close()
