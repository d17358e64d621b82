"""The processes below this one: who hears which signal, and that all of them end."""

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
    """Orphans below this process become its children instead of init's, so that it can end them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def deaf_and_tied(*signals: signal.Signals) -> Callable[[], None]:
    """For Popen's `preexec_fn`: the child and all below it never hear these signals, and the child is killed when this
    process ends.

    Ignoring is not enough: torch's loader workers install a handler of their own for SIGTERM. So the signals are
    blocked as well, which no handler undoes. All in the child, or a signal to this process could get lost meanwhile.
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
    """Programs started inside inherit that these signals are ignored, and so do theirs."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def descendants(root: int) -> list[int]:
    """Process ids of all children of `root`, theirs included, parents first; those that have ended left out."""
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
    """Whether a process whose main thread has ended, a zombie by its state, still has others: a rank that was killed
    while a thread sits in the GPU's driver keeps its GPU and its memory. `process` is its folder in /proc."""
    for thread in (process / "task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if thread.read_text().rpartition(")")[2].split()[0] not in "ZX":
                return True
    return False


def end_descendants(within: float = 10.0, but: int = 0) -> list[int]:
    """Kills and reaps all that runs below this process, but for the process `but`, itself. Parents first, or torchrun
    would report a rank that we kill as one that failed; repeated, because what is being killed may still fork. Returns
    what is left after `within` seconds: processes that wait for a disk or a driver, and end when that answers."""
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
    """Collects children that have ended, adopted ones included."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
