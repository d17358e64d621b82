"""How much disk space files take."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG


def disk_use(path: Path) -> int:
    """The bytes of all files in a folder. Files that a fork shares with its parent (hard links) count in both."""
    return sum(found.st_size for found in _files(path))


class Freed:
    """The bytes that are freed if paths are removed, one after the other: the bytes of a file with several names (hard
    links) count when the last of them is among them."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[int, int]] = Counter()

    def by(self, path: Path) -> int:
        """The bytes that are freed by removing a file or a folder, after the paths of earlier calls."""
        total = 0
        for found in _files(path):
            file = found.st_dev, found.st_ino
            self.seen[file] += 1
            total += found.st_size * (self.seen[file] == found.st_nlink)
        return total


def bytes_text(count: int) -> str:
    """A number of bytes in megabytes, or in gigabytes from 1 GB on, for a table."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _files(path: Path | str) -> Iterator[os.stat_result]:
    """The status of each regular file at or below a path. Links are not followed, and what vanishes or cannot be read
    is left out."""
    try:
        with os.scandir(path) as entries:
            inside = list(entries)
    except NotADirectoryError:
        inside = []
        try:
            if S_ISREG((found := os.lstat(path)).st_mode):
                yield found
        except OSError:
            pass
    except OSError:
        return
    for entry in inside:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry.stat(follow_symlinks=False)
        except OSError:
            continue
