"""Writes the stacks of all threads of a rank that hangs to the attempt's folder; the node's launcher then ends it.

When one rank hangs, the others soon wait for it, so all of them time out. The one at the earliest point of the program
is the one the others wait for (`launch/attempts/hang.py` compares them). Stacks do not contain the step, so each call
of `pet` writes it in front of them, with a count of the calls: the launcher ends the attempt when that stays the same
(`launch/node/hanging.py`). `faulthandler` writes from a C thread. Both work when Python is stuck; and the launcher is
stopped with the ranks when SLURM suspends the job, so that this time does not count.
"""

from __future__ import annotations

import faulthandler
import math
import os
import time
from contextlib import suppress

from drumbeat.configs.patience import PROGRESS
from drumbeat.configs.run.attempt import Attempt
from drumbeat.trainers.world import limit_waits

STEPS = 50
"""A step may take this many times as long as the longest step before it."""


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
        self.step = self.pets = 0
        self.armed = 0.0
        self.limit = 0.0
        """The timeout that the process group has."""

    @property
    def timeout(self) -> float:
        """Seconds without a call of `pet` that count as a hang."""
        return max(self.shortest, STEPS * self.longest) if self.grows else self.shortest

    def pet(self, step: int) -> None:
        """Restarts the timeout at the run's step number `step`. It writes a few bytes, in some microseconds; the timer
        is set again at most once a second, or every tenth of the timeout if that is shorter."""
        now = time.monotonic()
        if self.longest < (passed := now - self.petted) < self.timeout:  # beyond, the job was suspended in this step
            self.longest = passed
        self.petted, self.step, timeout = now, step, self.timeout
        if timeout == math.inf:
            return
        self.pets += 1
        start = self._write(timeout)
        if now - self.armed > min(1.0, timeout / 10):
            self.armed = now
            self._arm(start)

    def _write(self, timeout: float) -> int:
        """Writes the progress, with this timeout. Returns its length."""
        progress = PROGRESS % (self.step, timeout, self.pets)
        with suppress(OSError):  # the disk is full or gone: the launcher cannot write there either, and counts no time
            os.pwrite(self.file.fileno(), progress, 0)
        return len(progress)

    def _arm(self, start: int) -> None:
        """Sets the timer. The stacks will be written from byte `start` on."""
        with suppress(OSError):
            if self.file.tell() != start:  # the first time, or this rank has recovered after writing its stacks
                self.file.truncate(start)
                self.file.seek(start)
        if self.limit != self.timeout:
            self.limit = self.timeout
            limit_waits(self.timeout)
        faulthandler.dump_traceback_later(self.timeout, file=self.file)

    def close(self) -> None:
        """Cancels the timeout."""
        faulthandler.cancel_dump_traceback_later()
        if self.pets:
            self._write(math.inf)
        self.file.close()
