"""How the code of two runs differs: from the copies in their folders."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from drumbeat.configs.run.code_files import differing_files, files_of
from drumbeat.configs.run.code_records import CodeSnapshot, newest_code
from drumbeat.configs.run.files import DamagedError, read_text
from drumbeat.configs.run.folder import RunDir

MAX_BYTES = 2**20
"""Of a larger file it is only said that it differs."""
MAX_LINES = 5000
"""Lines of a difference that are shown."""


@dataclass(frozen=True)
class CodeDifference:
    """What is different in the code of a second run."""

    first: str
    second: str
    """The commits and the number of changed files, of each run; "no copy" for a run from the original files."""
    files: Sequence[str] = ()
    """The files that differ, or that only one of the runs has."""
    diff: str = ""
    """As `diff -u` prints it, cut to `MAX_LINES`."""


def code_difference(first: RunDir, second: RunDir) -> CodeDifference:
    """How the newest copies of the code differ."""
    codes = [newest_code(run.path) for run in (first, second)]
    texts = [_text(code) for code in codes]
    copies = [code for code in codes if code]
    if len(copies) < 2:
        return CodeDifference(first=texts[0], second=texts[1])
    differing = differing_files(*copies)
    mine, theirs = map(files_of, copies)
    lines = [line for name in differing for line in _diff(name, mine.get(name), theirs.get(name))]
    more = [f"... and {len(lines) - MAX_LINES:,} more lines"] if len(lines) > MAX_LINES else []
    return CodeDifference(first=texts[0], second=texts[1], files=differing, diff="\n".join(lines[:MAX_LINES] + more))


def _text(code: Path | None) -> str:
    """The commit of each tree, and how many of its files were changed."""
    snapshot = CodeSnapshot.read(code / "snapshot.json") if code else None
    if snapshot is None:
        return "no copy"
    return ", ".join(f"{tree.name} at {tree.commit[:7] or 'no commit'}" + (
        f" with {tree.changed_files} changed file{'s' * (tree.changed_files != 1)}" if tree.changed_files else "")
        for tree in snapshot.trees)


def _diff(name: str, one: Path | None, other: Path | None) -> Iterator[str]:
    """The difference of two files, of which one may not exist."""
    try:
        before, after = (read_text(file, MAX_BYTES).splitlines() if file else [] for file in (one, other))
    except (DamagedError, FileNotFoundError):
        yield f"{name} differs"
        return
    yield from difflib.unified_diff(before, after, f"A/{name}" if one else "/dev/null",
                                    f"B/{name}" if other else "/dev/null", lineterm="")
