"""Files in folders that other users of the machine may be able to write to.

The names of these files are predictable, so another user may have created a folder or a link of that name before.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO


def open_lock(path: Path) -> IO[bytes]:
    """Opens a file to lock, and creates it if needed. Raises `OSError` for a link, which may lead to any file."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(path, "rb", opener=lambda name, _: os.open(name, flags, 0o666))


def check_owner(folder: Path, *trusted: int) -> None:
    """Raises `PermissionError` unless a folder belongs to this user, to root, or to a user id in `trusted`. For a link,
    the owner of the link counts."""
    found = folder.stat(follow_symlinks=False)
    if found.st_uid not in (os.geteuid(), 0, *trusted):
        raise PermissionError(errno.EPERM, "it belongs to another user", str(folder))
