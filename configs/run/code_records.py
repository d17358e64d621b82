"""The records of a run's copy of the code; tests/configs/run/test_records.py reads back all records."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from drumbeat.configs.layers import short
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.record import Record


@dataclass(frozen=True, kw_only=True)
class CodeTree(Record):
    """A folder of code in a snapshot."""

    name: str
    """Its folder below RUN/code."""
    folder: str
    """The folder it was copied from."""
    files: int = 0
    bytes: int = 0
    commit: str = ""
    changed_files: int = 0
    """Files that differ from that commit."""
    foreign: bool = False
    """Whether it belongs to another user, whose git configuration is not trusted."""
    secret: tuple[str, ...] = ()
    """Files left out because they probably hold a password or a key."""
    other: tuple[str, ...] = ()
    """Files left out because git does not track them and they are not code."""


@dataclass(frozen=True, kw_only=True)
class CodeSnapshot(Record):
    """code/snapshot.json: the code of a run. Written when it is copied."""

    trees: tuple[CodeTree, ...]
    home: str
    """The folder in which Python finds Drumbeat: relative to RUN/code, or absolute if it is not copied."""
    folder: str
    """The folder in which the command was typed, in the same form."""
    python_path: tuple[str, ...] = ()
    """The folders in PYTHONPATH, in the same form."""
    targets: tuple[str, ...] = ()
    """Other folders with targets, in the same form: those of editable installs."""
    time: float = field(default_factory=time.time)


def newest_code(run: Path) -> Path | None:
    """The snapshot that a run uses: code/, or the last of code-2/, code-3/, ... if it got newer code; otherwise that of
    the sweep whose trial it is; None without one."""
    return next(filter(None, map(newest_in, (run, run.parent))), None)


def newest_in(folder: Path) -> Path | None:
    """The newest snapshot in a folder itself; None without one."""
    numbers = {int(found[1] or 1): path for path in folder.glob("code*")
               if (found := re.fullmatch(r"code(?:-(\d+))?", path.name)) and (path / "snapshot.json").exists()}
    return numbers[max(numbers)] if numbers else None


def with_originals(text: str, run: Path) -> str:
    """A text about an error with the user's own files in place of their copies in the run's folder, which nobody edits,
    and which are removed if the run is refused."""
    for file in run.glob("code*/snapshot.json"):
        with suppress(OSError, DamagedError):
            for tree in CodeSnapshot.require(file).trees:
                copy, own = file.parent / tree.name, Path(tree.folder)
                text = text.replace(f"{copy}/", f"{own}/")
                text = text.replace(f"{short(copy)}/", "" if own == Path.cwd() else f"{short(own)}/")
    return text
