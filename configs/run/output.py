"""Standard output and error of a process that must not fail if the disk of its log does."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any


class Lossy(io.RawIOBase):
    """Writes to an open file. Bytes that the disk does not accept are dropped. The log states their number when the
    disk accepts writes again."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.lost = 0

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.handle

    def write(self, data: Any) -> int:
        content = bytes(data)
        note = f"[{self.lost:,} bytes of this log are lost: the disk was full or gone]\n".encode() if self.lost else b""
        try:
            written = os.write(self.handle, note + content)
        except OSError:
            written = 0
        if written >= len(note):
            self.lost = 0
        self.lost += len(content) - max(0, written - len(note))
        return len(content)


def open_standard_files() -> None:
    """Opens /dev/null in place of standard input, output or error that the caller has closed (`<&-`, cron, some
    containers). Otherwise, the next file that is opened would take its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:  # open(2) takes the lowest number that is free
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def limit_log(path: Path, most: int = 4 * 2**20) -> None:
    """Empties a log that processes append to if it has more than `most` bytes."""
    with suppress(OSError):
        if S_ISREG(path.lstat().st_mode) and path.lstat().st_size > most:
            os.truncate(path, 0)
            print(f"[this log had more than {most:,} bytes, which were removed]", flush=True)


def outlive_the_log() -> None:
    """From now on, no print of this process fails because of the disk of standard output and error."""
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BufferedWriter(Lossy(number)), encoding="utf-8", errors="backslashreplace",
                         line_buffering=True) for number in (1, 2))
