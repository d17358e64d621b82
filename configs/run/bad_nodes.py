"""Nodes on which an attempt failed for a reason of the machine. The next jobs are submitted without them, for a day.

They are remembered in the folder of all runs, for all of its runs: RUNS/.nodes/NODE.RUN.json, a file for each node and
run. So each file has one writer, and none is read and written back: launchers on many nodes need no lock. Whoever may
write to the folder of all runs may add or remove files; those that are not such records are ignored.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from drumbeat.configs.run.files import DamagedError, write_soon
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.record import Record

FOLDER = ".nodes"
"""No experiment has such a name."""
DAY = 86_400.0
"""Seconds for which a node is remembered."""
AHEAD = 3_600.0
"""Seconds by which the clock of another machine may be ahead of this one's."""
MOST_FILES = 10_000
"""More files are not read."""
MOST_BYTES = 16_384
LONGEST_REASON = 300
NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""The names of nodes that are remembered: they become a part of paths and of the job's script."""


@dataclass(frozen=True, kw_only=True)
class BadNode(Record):
    """A node that failed, and why."""

    node: str
    """SLURM's name of the node."""
    reason: str
    """In one line."""
    run: str
    """The id of the run that failed on it."""
    time: float
    """When it failed, in seconds since 1970."""

    def __post_init__(self) -> None:
        if not NODE_NAME.fullmatch(self.node):
            raise ValueError(f"{self.node!r:.40} is not the name of a node")

    @property
    def until(self) -> float:
        """When it is used again, in seconds since 1970."""
        return self.time + DAY

    @property
    def file_name(self) -> str:
        return f"{self.node}.{re.sub(r'[^A-Za-z0-9._-]', '_', self.run)[:100]}.json"


def remember(runs: Path, node: str, reason: str, run: str, time: float) -> bool:
    """Remembers that a node failed at a time, in the folder of all runs. Returns whether it could be written; a run
    does not fail, or wait for its disk, because of that. Removes what is no longer remembered."""
    folder = runs / FOLDER
    try:
        record = BadNode(node=node, reason=" ".join(reason.split())[:LONGEST_REASON], run=run, time=time)
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            above = runs.stat()
            with suppress(PermissionError):  # for root, so that the owner of the runs may write there
                os.chown(folder, above.st_uid, above.st_gid)
            folder.chmod(stat.S_IMODE(above.st_mode))  # whoever may make runs may remember nodes
    except (OSError, ValueError):
        return False
    for path, old in _records(runs):
        if not _counts(old, time):
            with suppress(OSError):
                path.unlink()
    return not folder.is_symlink() and write_soon(
        folder / record.file_name, json.dumps(record.as_json()), 0)


def remember_all(run: RunDir, bad_nodes: Mapping[str, str], time: float) -> list[str]:
    """Remembers that these nodes failed in a run, each with its reason. Returns those that could not be written."""
    return [node for node, reason in bad_nodes.items() if not remember(run.all_runs, node, reason, run.id, time)]


def remembered(runs: Path, now: float | None = None) -> list[BadNode]:
    """The nodes that are remembered at a moment, by default now, in the order of their names; of each its last
    failure."""
    moment = time.time() if now is None else now
    newest: dict[str, BadNode] = {}
    for _, record in sorted(_records(runs), key=lambda found: found[1].time):
        if _counts(record, moment):
            newest[record.node] = record
    return [newest[node] for node in sorted(newest)]


def forget(runs: Path, nodes: Collection[str], run: str | None = None) -> None:
    """Forgets all failures of these nodes, or those in one run. Raises `OSError`."""
    for path, record in _records(runs):
        if record.node in nodes and run in (None, record.run):
            path.unlink(missing_ok=True)


def _counts(record: BadNode, now: float) -> bool:
    """Whether a node is remembered at a moment; a failure in the future is not plausible."""
    return now - DAY < record.time < now + AHEAD


def _records(runs: Path) -> Iterator[tuple[Path, BadNode]]:
    """All records with their files."""
    try:
        with os.scandir(runs / FOLDER) as entries:
            paths = [Path(entry.path) for entry in islice(entries, MOST_FILES)]
    except OSError:
        return
    for path in paths:
        with suppress(DamagedError, OSError):
            if path.lstat().st_size <= MOST_BYTES and (record := BadNode.read(path)) and path.name == record.file_name:
                yield path, record
