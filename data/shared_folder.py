"""Files in folders that other users of the machine may be able to write to.

The names of these files are predictable, so another user may have created a folder, a link or a pipe of that name
before.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO


def open_lock(path: Path) -> IO[bytes]:
    """Opens a file to lock, and creates it if needed. It is created without permission to read, so that whoever may not
    write to it cannot open it either, and keep others waiting. Raises `OSError` for a link, which may lead to any file,
    and for a pipe."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(path, "wb", opener=lambda name, _: os.open(name, flags, 0o222))


def without_links(path: str, flags: int) -> int:
    """An `opener` for `open`. Raises `OSError` for a link, which may lead to any file."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def owners_of(path: Path) -> set[int]:
    """The users who may replace a file or a folder: its owner, and the owners of all folders above it."""
    path = path.resolve()
    return {part.stat().st_uid for part in (path, *path.parents)}


def check_owner(folder: Path, *trusted: int) -> None:
    """Raises `PermissionError` if another user may have made a folder, or one above it, to deceive this one: if it lies
    where everybody may write, as in /tmp, and belongs neither to this user, nor to root, nor to a `trusted` user id.
    Whoever may write to another folder is trusted, since a group may share it."""
    for path in (folder.absolute(), folder.resolve()):
        for part in (path, *path.parents):
            owner = part.stat(follow_symlinks=False).st_uid
            if owner not in (os.geteuid(), 0, *trusted) and part.parent.stat().st_mode & stat.S_IWOTH:
                raise PermissionError(errno.EPERM, "it belongs to another user", str(part))
