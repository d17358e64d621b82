"""Finding the processes of a run on this machine, and killing them.

A process belongs to a run if its command line names the run's folder: not a folder that once had this path, nor one
that this is a copy of, nor one of that name in a container. It must belong to the owner of the folder or to this user.
Only a process that is proven to belong to the run receives a signal, through a pidfd, which a reused process id cannot
redirect.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from drumbeat.configs.run.view import View
from drumbeat.launch.attempts.processes import descendants

IN_ALLOCATION = b"drumbeat.launch.backends.allocation"
"""An argument of the bash that starts a run in an allocation, to recognize it by."""
LAUNCHERS = {b"submitit.local._local", b"submitit.core._submit", IN_ALLOCATION}
RANKS = {b"drumbeat.trainers.forkserver", b"drumbeat.trainers.worker"}
"""Arguments in the command lines of a run's processes: of the controller and the node launcher; of torchrun and ranks,
which are forked from the fork server and keep its command line."""
SUBMITIT = b"/submitit"
"""The end of a path of submitit's folder in a run (`RunDir.submitit`)."""
KILL_SECONDS = 10.0
"""Seconds after which a killed process that still exists is waiting for a device that does not respond."""


def processes_of(view: View, modules: set[bytes] = LAUNCHERS | RANKS) -> list[int]:
    """The run's processes on this machine: their command lines contain its folder and one of these modules."""
    return [process for process in map(int, filter(str.isdigit, os.listdir("/proc")))
            if process != os.getpid() and _belongs(process, view, modules)]


def processes_of_former_folder(view: View) -> list[int]:
    """The processes of a run that was moved while they were running. They are not proven to be the run's: they name a
    folder that does not exist."""
    former = os.fsencode(view.plan.run_dir)
    if view.run.path == Path(view.plan.run_dir) or os.path.lexists(former):
        return []
    return [process for process in map(int, filter(str.isdigit, os.listdir("/proc")))
            if (arguments := _arguments(process)) & LAUNCHERS and arguments & {former, former + SUBMITIT}]


def end_processes(find: Callable[[], list[int]]) -> list[int]:
    """Kills the processes that `find` returns, which are proven to belong to a run, and all of their descendants, until
    it returns none. Returns the processes that remain."""
    until = time.monotonic() + KILL_SECONDS
    while running := _with_descendants(find()):
        if time.monotonic() > until:
            return sorted(running)
        with ExitStack() as stack:
            handles = {process: handle for process in running if (handle := _pidfd(process, stack)) is not None}
            for process in _with_descendants(find()) & handles.keys():  # proven again: an id may have been reused
                with suppress(ProcessLookupError, PermissionError):
                    _kill(process, handles[process])
        time.sleep(0.02)
    return []


def _with_descendants(processes: list[int]) -> set[int]:
    return {*processes, *(below for process in processes for below in descendants(process))}


def _pidfd(process: int, stack: ExitStack) -> int | None:
    """An open handle of a process, which never means another process; None if it has ended. -1 if the kernel has no
    such handles (before Linux 5.3), or does not allow them in this container."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return None
    except OSError:
        return -1
    stack.callback(os.close, handle)
    return handle


def _kill(process: int, handle: int) -> None:
    """Kills a process, through its handle if there is one."""
    if handle < 0:
        os.kill(process, signal.SIGKILL)
    else:
        signal.pidfd_send_signal(handle, signal.SIGKILL)


def has_open(process: int, folder: Path) -> bool:
    """Whether a process holds this folder open. False if that cannot be seen: for a process of another user."""
    with suppress(OSError):
        wanted = folder.stat()
        for opened in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                if os.path.samestat(opened.stat(), wanted):
                    return True
    return False


def can_see_processes(owner: int) -> bool:
    """Whether this user can see the processes of the user `owner`: /proc may be mounted with hidepid (proc(5))."""
    return os.geteuid() in (0, owner) or os.access("/proc/1/cmdline", os.R_OK)


def _belongs(process: int, view: View, modules: set[bytes] = LAUNCHERS | RANKS) -> bool:
    """Whether a process belongs to the run."""
    try:
        arguments = _arguments(process)
        if not arguments & modules:
            return False
        folder = view.run.path.stat()
        return Path(f"/proc/{process}").stat().st_uid in (folder.st_uid, os.geteuid()) and any(
            _is_folder(process, path, folder) for path in arguments if path.startswith(b"/"))
    except OSError:
        return False


def _arguments(process: int) -> set[bytes]:
    """The arguments of a process; none if it has ended."""
    with suppress(OSError):
        return set(Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0"))
    return set()


def _is_folder(process: int, word: bytes, run: os.stat_result) -> bool:
    """Whether an absolute path, as this process resolves it, is the run's folder or submitit's folder in it."""
    path = os.fsdecode(word.removesuffix(SUBMITIT)).lstrip("/")
    with suppress(OSError):
        try:
            return os.path.samestat(Path(f"/proc/{process}/root", path).stat(), run)
        except PermissionError:  # a process of another user: as this one resolves it
            return os.path.samestat(Path("/", path).stat(), run)
    return False
