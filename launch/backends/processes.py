"""The processes of a run on this machine: told by their command lines, and ended."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.attempts.processes import descendants

IN_ALLOCATION = b"drumbeat.launch.backends.allocation"
"""Given to the bash that has srun start the launchers of a run in an allocation, so that it can be told from others."""
LAUNCHERS = {b"submitit.local._local", b"submitit.core._submit", IN_ALLOCATION}
RANKS = {b"drumbeat.trainers.forkserver", b"drumbeat.trainers.worker"}
"""What stands in the command lines of a run's processes: of controller and node launcher, of torchrun and ranks
(which are forked from the fork server and keep its command line, or were started without it)."""
KILL_SECONDS = 10.0
"""A killed process that is still there after so long waits for a device that does not answer."""


def processes_of(view: View, modules: set[bytes] = LAUNCHERS | RANKS) -> list[int]:
    """Processes on this machine that run it: their command lines hold its folder and one of these modules."""
    found = []
    planned = RunDir(Path(view.plan.run_dir))  # the same folder, perhaps by another path
    folders = {os.fsencode(path) for run in (view.run, planned) for path in (run.path, run.submitit)}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = set((entry / "cmdline").read_bytes().split(b"\0"))
            except OSError:
                continue
            if words & folders and words & modules:
                found.append(int(entry.name))
    return found


def end_processes(view: View, *parents: int) -> list[int]:
    """Kills all processes of a run on this machine, and all below these parents. Returns what does not end."""
    until = time.monotonic() + KILL_SECONDS
    while running := {*(below for parent in parents for below in descendants(parent)), *processes_of(view)}:
        if time.monotonic() > until:
            return sorted(running)
        for process in running:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    return []
