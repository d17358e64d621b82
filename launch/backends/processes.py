"""Finding the processes of a run on this machine by their command lines, and killing them."""

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
"""An argument of the bash that starts a run in an allocation, to recognize it by."""
LAUNCHERS = {b"submitit.local._local", b"submitit.core._submit", IN_ALLOCATION}
RANKS = {b"drumbeat.trainers.forkserver", b"drumbeat.trainers.worker"}
"""Arguments in the command lines of a run's processes: of the controller and the node launcher; of torchrun and ranks,
which are forked from the fork server and keep its command line."""
KILL_SECONDS = 10.0
"""Seconds after which a killed process that still exists is waiting for a device that does not respond."""


def processes_of(view: View, modules: set[bytes] = LAUNCHERS | RANKS) -> list[int]:
    """The run's processes on this machine: their command lines contain its folder and one of these modules."""
    found = []
    planned = RunDir(Path(view.plan.run_dir))  # the same folder, perhaps through another path
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
    """Kills all processes of a run on this machine and all descendants of `parents`. Returns those that remain."""
    until = time.monotonic() + KILL_SECONDS
    while running := {*(below for parent in parents for below in descendants(parent)), *processes_of(view)}:
        if time.monotonic() > until:
            return sorted(running)
        for process in running:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    return []
