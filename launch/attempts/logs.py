"""Reads what the processes of an attempt have written: logs and stacks, of any size."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TAIL = 1 << 22
"""Bytes at the end of a file that are read."""


def open_log(path: Path) -> BinaryIO:
    """Opens a file without waiting for a pipe's other end. Raises `FileNotFoundError` if it does not exist or is not a
    regular file, and `OSError`."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(path)
    return open(handle, "rb")


def end_of(path: Path) -> str:
    """The last `TAIL` bytes of a file as text; '' if it does not exist or is not a regular file."""
    try:
        with open_log(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read(TAIL).decode(errors="replace")
    except FileNotFoundError:
        return ""


def numbered(folder: Path, kind: str, suffix: str) -> Iterator[tuple[int, Path]]:
    """The numbers and paths of files such as rank0.log, in order. Other names, such as those of copies, are ignored."""
    found = ((re.fullmatch(rf"{kind}([0-9]{{1,9}}){re.escape(suffix)}", path.name), path) for path in folder.glob(
        f"{kind}*{suffix}"))
    yield from sorted((int(name[1]), path) for name, path in found if name)
