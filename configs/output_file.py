"""The files that commands write, complete or not at all; and what is wrong with a disk that refuses them."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError

REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space there, or use another disk."),
    errno.EFBIG: ("the file is larger than its disk or a limit allows", "Use another disk, or see: ulimit -f"),
    errno.EDQUOT: ("your disk quota is used up", "Free some space (see: quota -s), or use another disk."),
    errno.EROFS: ("the disk is read-only", "Use another disk, or ask its administrator."),
    errno.EIO: ("the disk or its file server has failed", "Try again when it is back, or use another disk."),
    errno.ESTALE: ("the file server has lost this folder", "Try again when it is back, or use another disk."),
    errno.ENOTCONN: ("the file server is not connected", "Try again when it is back, or use another disk."),
}
"""Errors that are about the disk and not about the file: what is wrong, and what to do."""
NO_INODES = ("the disk has no inodes left: it holds as many files as it can",
             "Delete some files there (see: df -i), or use another disk.")


def disk_fault(error: BaseException, file: Path) -> Fault | None:
    """What is wrong with the disk of `file`, if that has caused the error; otherwise None. Some libraries raise errors
    of their own when a disk is full, so for those the disk is asked."""
    number = error.errno if isinstance(error, OSError) else None
    folder = next((folder for folder in file.parents if folder.is_dir()), None)
    try:
        disk = os.statvfs(folder or file)
    except OSError:
        disk = None
    if number is None and disk and min(disk.f_bavail, disk.f_favail if disk.f_files else 1) == 0:
        number = errno.ENOSPC
    if number not in REASONS:
        return None
    full = NO_INODES if number == errno.ENOSPC and disk and disk.f_files and not disk.f_favail else REASONS[number]
    return Fault(what=full[0], where=str(file), remedy=full[1])


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path in the same folder, with the same suffix, for the new content of `file`, which it replaces at the end.
    After an error, `file` is as before. Nobody can predict the path, so a link of another user is not followed; nor is
    one at `file`. Raises `RunError` if the disk did not accept the file, and otherwise the error of the block."""
    temporary = file.with_name(f".{secrets.token_hex(8)}.{file.name}")
    try:
        yield temporary
        os.replace(temporary, file)
    except Exception as error:
        if fault := disk_fault(error, file):
            raise RunError(fault) from error
        raise
    finally:
        with suppress(OSError):  # a read-only disk accepts no removal either
            temporary.unlink()
