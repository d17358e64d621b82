"""Files in folders that other users of the machine may be able to write to.

Names there are predictable, so somebody may have made a folder or a link of that name first.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO


def open_lock(path: Path) -> IO[bytes]:
    """A file to lock, made if it does not exist and left as it is otherwise. Raises `OSError` for a link, which may
    lead anywhere."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(path, "rb", opener=lambda name, _: os.open(name, flags, 0o666))


def check_owner(folder: Path, *trusted: int) -> None:
    """Raises `PermissionError` if another user may have made a folder to deceive this one: if everybody may write to
    the folder that contains it, as in /tmp, and it belongs neither to this user, nor to root, nor to a `trusted` user
    id. Whoever may write to another folder is trusted, since a group may share it."""
    owner = folder.stat(follow_symlinks=False).st_uid
    if owner not in (os.geteuid(), 0, *trusted) and folder.parent.stat().st_mode & stat.S_IWOTH:
        raise PermissionError(errno.EPERM, "it belongs to another user", str(folder))
