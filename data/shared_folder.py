"""Files in folders that other users of the machine may be able to write to.

Names there are predictable, so somebody may have made a folder or a link of that name first.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO


def open_lock(path: Path) -> IO[bytes]:
    """A file to lock, made if it does not exist and left as it is otherwise. Raises `OSError` for a link, which may
    lead anywhere."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(path, "rb", opener=lambda name, _: os.open(name, flags, 0o666))


def check_owner(folder: Path, *trusted: int) -> None:
    """Raises `PermissionError` unless a folder is a real one and belongs to this user, to root, or to a `trusted` user
    id."""
    found = folder.stat(follow_symlinks=False)
    if found.st_uid not in (os.geteuid(), 0, *trusted):
        raise PermissionError(errno.EPERM, "it belongs to another user", str(folder))
