"""When files of a run were written, by the clock of their file system.

A run's files are written on several machines, whose clocks may differ by minutes. A file server dates them all by its
own clock (on Lustre, the clients do).
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path


def modified(path: Path) -> float | None:
    """When a file was last written, in seconds since 1970; None if it does not exist."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def file_system_time(folder: Path) -> float:
    """The present time by the clock of a folder's file system, which dates a temporary file there. This machine's time
    if none can be made: in another user's folder, or on a full disk."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
