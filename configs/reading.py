"""Opens files that another user may have prepared: only regular files of a bounded size, and none outside a folder."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def open_regular(path: Path, *, most: int | None = None, inside: Path | None = None) -> BufferedReader:
    """Opens a regular file for reading. It does not block on a pipe.

    `most` is the largest size in bytes. `inside` is a folder that no link in the path may lead out of. Raises
    `OSError`; its `strerror` says what is wrong with the file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found, wrong = os.fstat(handle), ""
        if not stat.S_ISREG(found.st_mode):
            wrong = "it is not a regular file"
        elif inside and not _is_inside(Path(f"/proc/self/fd/{handle}").readlink(), inside):
            wrong = "it is a link to a file outside of the run's folder"
        elif most is not None and found.st_size > most:
            wrong = f"it is too large ({found.st_size:,} bytes)"
        if wrong:
            raise OSError(errno.EINVAL, wrong, str(path))
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _is_inside(found: Path, folder: Path) -> bool:
    """Whether a path without links is in a folder."""
    return found.is_relative_to(folder) or found.is_relative_to(os.path.realpath(folder))
