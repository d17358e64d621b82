"""Files of datasets: only regular files are read, and no line is longer than a bound."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
         stat.S_IFBLK: "a device"}


def open_regular(file: str | Path) -> BinaryIO:
    """Opens a file for reading, without waiting for the other end of a pipe. Raises `ValueError` if it is not a
    regular file, and `OSError`."""
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise ValueError(f"it is {KINDS.get(stat.S_IFMT(mode), 'something else')}, and not a regular file")
    return open(handle, "rb")


def kind_of(file: str | Path) -> str:
    """What a path is that is not a regular file, for an error."""
    try:
        return KINDS.get(stat.S_IFMT(Path(file).stat().st_mode), "something else")
    except OSError:
        return "a link that leads nowhere"


def lines_of(file: BinaryIO, most: int) -> Iterator[bytes]:
    """The lines of a file with their ends. Raises `ValueError`, which names the line, for one of more than `most`
    bytes."""
    number = 0
    while line := file.readline(most + 1):
        number += 1
        if len(line) > most:
            raise ValueError(f"line {number} is longer than {most >> 20} MB")
        yield line
