"""A full file system in the place of a folder, seen only by the drill and the runs that it starts.

It needs root: only root may mount one without changing who the run's processes are. For other users `full_disk` says
so, and the drill limits the size of the writer's files instead.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 0x40000, 2
"""From linux/sched.h and linux/mount.h."""
BYTES = 1 << 20

_refused = "the drill has not begun"


def own_mounts() -> None:
    """From now on, what this process mounts exists only for itself and its descendants, and ends with them. Without the
    permission, `full_disk` raises the reason."""
    global _refused
    try:
        _call("unshare", CLONE_NEWNS)
        _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
        _refused = ""
    except OSError as error:
        _refused = error.strerror or str(error)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Within the context, a small file system without a free byte is mounted over `folder`, whose files are hidden.
    Raises `PermissionError` if this process may not mount one."""
    if _refused:
        raise PermissionError(_refused)
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={BYTES}".encode())
    try:
        with suppress(OSError), open(folder / "full", "wb", buffering=0) as file:
            while True:
                file.write(bytes(BYTES // 256))
        yield
    finally:
        _call("umount2", os.fsencode(folder), MNT_DETACH)


def _call(function: str, *arguments: object) -> None:
    """Calls a function of the C library. Raises `OSError`."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, function)(*arguments):
        raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")
