"""Waits for processes that tests start, and kills them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import processes_of


def until(reached: Callable[[], Any], seconds: float = 120.0) -> None:
    """Waits until `reached()` is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"timed out after {seconds} s"
        time.sleep(0.02)


def wait_for_file(path: Path, process: subprocess.Popen[Any], seconds: float = 120.0) -> None:
    """Waits for a file that a process creates; fails if the process ends before."""
    def reached() -> bool:
        assert path.exists() or process.poll() is None, f"the process ended without {path}"
        return path.exists()

    until(reached, seconds)


def alive(process: int) -> bool:
    """Whether a process exists and is not a zombie."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def names_of(processes: Iterable[int]) -> dict[int, str]:
    """The names of processes, without those that end meanwhile."""
    found = {}
    for process in processes:
        with suppress(OSError):
            found[process] = Path(f"/proc/{process}/comm").read_text().strip()
    return found


def kill_all(run: RunDir) -> None:
    """Kills all processes of a run, as a power cut would."""
    for _ in range(3):
        for process in processes_of(View.read(run)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    until(lambda: not processes_of(View.read(run)), seconds=20)


def listening_addresses(port: int) -> list[str]:
    """The addresses on which some process of this machine listens at a TCP port, as in /proc/net/tcp: 0100007F is
    127.0.0.1; all zeros are all interfaces."""
    rows = [line.split() for family in ("tcp", "tcp6") for line in Path(f"/proc/net/{family}").read_text().splitlines()]
    return [row[1].partition(":")[0] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]
