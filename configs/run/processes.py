"""Child processes that end with their parent, names of processes and nodes, and where processes can be seen.

Linux only: through prctl(2), which Python's standard library does not have, and /proc.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15


def die_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Makes the kernel send this process the signal when its parent process, `parent`, ends in any way.

    More precisely, when the *thread* that started this process ends: start such processes from a long-lived thread.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # the parent ended before the line above
        os.kill(os.getpid(), number)


def call_process(name: str) -> None:
    """Sets the name of this process in ps, top and /proc/PID/comm: at most 15 characters."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def process_space() -> str:
    """Identifies the processes that this one can see: those of this boot of this machine, in this PID namespace. Two
    containers on a machine differ, even under one host name; a new host name makes no difference. '' if unknown."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def node_name() -> str:
    """The name of this node for SLURM and for the other nodes of its job; without SLURM, the host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
