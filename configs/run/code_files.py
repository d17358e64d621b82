"""The files of a run's copy of the code, and which of them differ from those of another run."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from drumbeat.configs.run.files import open_file


def files_of(code: Path) -> dict[str, Path]:
    """The copied files by their names in the copy, TREE/PATH. Links, and what else is no regular file, are left out."""
    found = {}
    for folder, folders, names in os.walk(code):
        folders[:] = [name for name in folders if name != "__pycache__"]
        if Path(folder) != code:
            paths = (Path(folder, name) for name in names)
            found.update({str(path.relative_to(code)): path for path in paths if stat.S_ISREG(path.lstat().st_mode)})
    return found


def differing_files(one: Path, other: Path) -> list[str]:
    """The names of the files that differ between two copies, or that only one of them has, in order. Raises
    `DamagedError` as `content`."""
    mine, theirs = files_of(one), files_of(other)
    return [name for name in sorted({*mine, *theirs}) if not _same(mine.get(name), theirs.get(name))]


def content(file: Path) -> bytes:
    """The content of a file of a copy. Raises `DamagedError` if it is not a regular one."""
    with open_file(file, None) as opened:
        return opened.read()


def _same(one: Path | None, other: Path | None) -> bool:
    return one is not None and other is not None and one.stat().st_size == other.stat().st_size and (
        content(one) == content(other))
