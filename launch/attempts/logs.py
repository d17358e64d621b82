"""Reads what the processes of an attempt have written: logs and stacks, of any size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from drumbeat.configs.run.files import DamagedError, read_end

TAIL = 1 << 22
"""Bytes at the end of a file that are read."""


def end_of(path: Path) -> str:
    """The last `TAIL` bytes of a file as text; '' if it does not exist, or is not a regular file of the run."""
    try:
        return read_end(path, TAIL)
    except (FileNotFoundError, DamagedError):
        return ""


def numbered(folder: Path, kind: str, suffix: str) -> Iterator[tuple[int, Path]]:
    """The numbers and paths of files such as rank0.log, in order. Other names, such as those of copies, are ignored."""
    found = ((re.fullmatch(rf"{kind}([0-9]{{1,9}}){re.escape(suffix)}", path.name), path) for path in folder.glob(
        f"{kind}*{suffix}"))
    yield from sorted((int(name[1]), path) for name, path in found if name)
