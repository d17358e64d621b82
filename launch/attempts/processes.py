"""The processes started by this one: which signals they receive, and ending all of them."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drumbeat.configs.run.processes import die_with_parent

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphaned descendants become children of this process instead of init's, so that it can end them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def child_setup(*signals: signal.Signals) -> Callable[[], None]:
    """For Popen's `preexec_fn`: the child and its descendants never receive these signals, and the kernel kills the
    child when this process ends.

    Ignoring the signals is not enough, because torch's loader workers install a handler for SIGTERM. So they are
    blocked as well, which a handler does not undo. It happens in the child: this process must not miss a signal
    meanwhile.
    """
    parent = os.getpid()

    def before_exec() -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        die_with_parent(parent, signal.SIGKILL)

    return before_exec


@contextmanager
def ignoring_signals(*signals: signal.Signals) -> Iterator[None]:
    """Processes started inside ignore these signals, and so do their descendants."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def descendants(root: int) -> list[int]:
    """The process ids of all descendants of `root` that have not ended, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z" or has_living_threads(entry):
                children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    rest = [root]
    while rest:
        below = children.get(rest.pop(), [])
        found += below
        rest += below
    return found


def has_living_threads(process: Path) -> bool:
    """Whether a process whose main thread has ended, which makes it a zombie, has other threads: a rank that is killed
    while a thread is in the GPU's driver keeps its GPU and its memory. `process` is its folder in /proc."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it is being reaped
        for thread in os.listdir(process / "task"):
            with suppress(FileNotFoundError, ProcessLookupError):
                if (process / "task" / thread / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    return True
    return False


def end_descendants(within: float = 10.0, but: int = 0) -> list[int]:
    """Kills and reaps all descendants of this process except the process `but` itself. Parents come first, or torchrun
    would report the killed ranks as failed; it repeats because a process may fork until it is killed. Returns what is
    left after `within` seconds: processes that wait for a disk or a driver, and end when it responds."""
    until = time.monotonic() + within
    while (running := [found for found in descendants(os.getpid()) if found != but]) and time.monotonic() < until:
        for process in running:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        reap()
        time.sleep(0.02)
    reap()
    return sorted(running)


def reap() -> None:
    """Reaps children that have ended, including adopted ones."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
