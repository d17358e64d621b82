"""Processes that end when the one that started them does, and that bear names. Linux; asked of prctl(2), for which
Python's standard library has no words."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15


def die_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """The kernel sends this process the signal when `parent`, the process that started it, ends in whatever way.

    To be exact, when the *thread* that started it ends: start such processes from a thread that lasts.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), number)


def call_process(name: str) -> None:
    """Names this process, at most 15 characters, for ps, top and /proc/PID/comm."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
