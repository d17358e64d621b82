"""Kills a rank that hangs, after writing the stacks of all its threads to the attempt's folder.

When one rank hangs, the others soon wait for it, so all of them time out. The one at the earliest point of the program
is the one the others wait for (`launch/attempts/hang.py` compares them). Stacks do not contain the step, so each call
of `pet` writes it in front of them. `faulthandler` writes from a C thread, and the kernel ends the process by SIGALRM:
both work when Python is stuck.
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
"""A step may take this many times as long as the longest step before it."""
STEP = b"step %12d\n"
"""The first line of a rank's stacks."""


class Watchdog:
    """Call `pet` at each step and each batch of an evaluation."""

    def __init__(self, attempt: Attempt, rank: int, shortest: float, *, grows: bool = False) -> None:
        """`shortest` is the timeout in seconds, infinity in a debugger. With `grows`, the timeout becomes longer if
        steps are slow."""
        self.file = attempt.stacks(rank).open("wb", buffering=0)
        self.shortest = shortest
        self.grows = grows
        self.longest = 0.0
        self.petted = time.monotonic()
        self.armed = 0.0
        self.limit = 0.0
        """The timeout that the process group has."""

    @property
    def timeout(self) -> float:
        """Seconds without a call of `pet` that count as a hang."""
        return max(self.shortest, STEPS * self.longest) if self.grows else self.shortest

    def pet(self, step: int) -> None:
        """Restarts the timeout at the run's step number `step`. It writes a few bytes, in some microseconds; the alarm
        is set again at most once a second, or every tenth of the timeout if that is shorter."""
        now = time.monotonic()
        self.longest = max(self.longest, now - self.petted)
        self.petted = now
        if self.timeout == math.inf:
            return
        line = STEP % step
        with suppress(OSError):  # the disk is full or gone: the stacks will not contain the step
            os.pwrite(self.file.fileno(), line, 0)
        if now - self.armed > min(1.0, self.timeout / 10):
            self.armed = now
            self._arm(len(line))

    def _arm(self, start: int) -> None:
        """Sets the alarm. The stacks will be written from byte `start` on."""
        with suppress(OSError):
            if self.file.tell() != start:  # the first time, or this rank has recovered after writing its stacks
                self.file.truncate(start)
                self.file.seek(start)
        if self.limit != self.timeout:
            self.limit = self.timeout
            limit_waits(self.timeout)
        faulthandler.dump_traceback_later(self.timeout, file=self.file)
        signal.setitimer(signal.ITIMER_REAL, self.timeout + GRACE)

    def close(self) -> None:
        """Cancels the alarm."""
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.file.close()
