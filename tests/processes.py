"""Processes that tests start: waiting for what they do, and for their end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import processes_of


def until(reached: Callable[[], Any], seconds: float = 120.0) -> None:
    """Waits until it is reached; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"timed out after {seconds} s"
        time.sleep(0.02)


def until_there(path: Path, process: subprocess.Popen[Any], seconds: float = 120.0) -> None:
    """Waits for a file that a process, which must not end before, makes."""
    def reached() -> bool:
        assert path.exists() or process.poll() is None, f"the process ended without {path}"
        return path.exists()

    until(reached, seconds)


def alive(process: int) -> bool:
    """Whether a process is there and has not ended."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kill_all(run: RunDir) -> None:
    """What a power cut does to a run."""
    for _ in range(3):
        for process in processes_of(View.read(run)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    until(lambda: not processes_of(View.read(run)), seconds=20)
