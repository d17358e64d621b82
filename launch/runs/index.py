"""What a list says of the runs that have ended, kept beside them, so that a list of ten thousand runs reads the others
only.

RUNS/.index.KIND.UID.json has an entry for each run whose end is recorded: what is said of it, and the time stamps of
its folders. They change with every file that is replaced in them, with a new attempt, and in a copy; then the entry no
longer counts and the run is read. The file is never needed: where it cannot be written, is damaged, or comes from
another version, the runs are read. Each user has one of their own, because nothing shows that another's is right.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import drumbeat
from drumbeat.configs.reading import open_regular
from drumbeat.configs.run.file_times import file_system_time
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View

FORMAT = f"2 of {drumbeat.__version__}"
"""The entries of other versions do not count."""
SETTLED_SECONDS = 5.0
"""A run is kept once its folders have not changed for so long: time stamps may have a resolution of two seconds."""
MAX_BYTES = 2**29
"""No index is larger."""


@dataclass
class Index:
    """The index of one kind of description, for the runs in one folder."""

    runs: Path
    kind: str
    entries: dict[str, Any] = field(default_factory=dict)
    """NAME/ID of a run: its newest attempt, the stamps of its folders, and what is said of it."""
    now: float = field(init=False)
    """The time at which reading begins, by the clock of the file system."""
    changed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.now = file_system_time(self.runs)

    @property
    def path(self) -> Path:
        return self.runs / f".index.{self.kind}.{os.geteuid()}.json"

    @classmethod
    def read(cls, runs: Path, kind: str) -> Index:
        """The index of a folder of runs; an empty one if there is none that counts."""
        index = cls(runs, kind)
        with (suppress(OSError, ValueError, LookupError, TypeError, RecursionError),
              open_regular(index.path, most=MAX_BYTES, inside=runs) as file):
            if os.fstat(file.fileno()).st_uid == os.geteuid():
                found = json.loads(file.read())
                if [found["format"], found["folder"]] == [FORMAT, str(runs)]:
                    index.entries = dict(found["runs"])
        return index

    def get(self, run: RunDir) -> Any:
        """What was said of a run; None if that is not known, or the run may have changed since."""
        with suppress(LookupError, TypeError, ValueError):
            attempt, seen, said = self.entries[_name(run)]
            if stamps(run, attempt) == seen:
                return said
        return None

    def keep(self, view: View, said: Any) -> None:
        """Keeps what is said of a run, if its end is recorded and its folders have not changed since it was read."""
        if view.ended and (seen := stamps(view.run, view.number)) and max(seen) < (self.now - SETTLED_SECONDS) * 1e9:
            self.entries[_name(view.run)] = [view.number, seen, said]
            self.changed = True

    def write(self, runs: Iterable[RunDir]) -> None:
        """Writes the entries of these runs, if an entry was added."""
        if self.changed:
            kept = {name: self.entries[name] for name in map(_name, runs) if name in self.entries}
            text = json.dumps({"format": FORMAT, "folder": str(self.runs), "runs": kept}, separators=(",", ":"))
            with suppress(OSError):
                write_text(self.path, text, durable=False, private=True)


def stamps(run: RunDir, attempt: int) -> list[int]:
    """When the names in the run's folder, in that of an attempt, and in that of its checkpoints last changed, in
    nanoseconds since 1970; 0 for a folder that does not exist. Empty if the run's folder cannot be opened."""
    try:  # over NFS, opening a folder is what asks the server about it
        handle = os.open(run.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return [os.fstat(handle).st_ctime_ns, *(_changed(name, handle) for name in (f"attempts/{attempt:03d}",
                                                                                    "checkpoints"))]
    finally:
        os.close(handle)


def _changed(name: str, folder: int) -> int:
    try:
        return os.stat(name, dir_fd=folder).st_ctime_ns
    except OSError:
        return 0


def _name(run: RunDir) -> str:
    return f"{run.path.parent.name}/{run.id}"
