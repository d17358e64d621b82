"""What nobody needs any more: of finished runs, of replays, and of commands that were killed. Nothing is removed here.

What stays of a finished run: the best checkpoint, the newest one, those that its config keeps (`checkpoints.keep_best`,
`keep_every_epochs`), the records of all attempts with their step logs, the logs of the newest attempt, and the curves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drumbeat.configs.errors import UserError
from drumbeat.configs.load import read
from drumbeat.configs.run.file_times import file_system_time
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import is_changing
from drumbeat.configs.run.manifest import (
    QUARANTINED,
    REMAINS,
    checkpoint_path,
    linked_checkpoint,
    progress_at,
    saved_steps,
)
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import running_evidence
from drumbeat.launch.runs.find import all_runs

LOG = re.compile(r"(rank|node)[0-9]+\.log|rank[0-9]+\.stacks|nccl-flight-recorder-rank[0-9]+")
"""The names of an attempt's logs, which are for people: no command computes with them."""
TEMPORARY = re.compile(r"\..+\.tmp(\.gz)?")
"""The names of files and folders that were to be renamed when they were complete."""
OLD_SECONDS = 24 * 3600.0
"""Temporary files outside of runs are left behind if they are older."""


@dataclass(frozen=True)
class Leftover:
    """A file or a folder that may go."""

    owner: str
    """NAME/END of the run's id, or the folder that it is in."""
    what: str
    """For users, in the singular."""
    path: Path
    step: int = -1
    """Of a checkpoint."""


def short_name(run: RunDir) -> str:
    """NAME/END: a run's name, and the end of its id, as commands take it."""
    return f"{run.path.parent.name}/{run.id.rpartition('-')[2]}"


def why_kept(view: View, *, locked: bool = False) -> str:
    """Why nothing of a run may be removed; '' if it is finished, no other command changes it (known if this one has
    `locked` it), and it is this user's."""
    if os.geteuid() not in (0, view.run.path.stat().st_uid):
        return "it belongs to another user"
    if view.state != "finished" or view.result is None:
        return f"it is {view.state or 'unknown'}, not finished"
    if any(folder.is_symlink() for folder in (view.run.path, view.run.checkpoints, view.run.attempts)):
        return "its folders are links"
    return "another command is changing it" if not locked and is_changing(view.run) else ""


def of_run(view: View, *, all_but_best: bool, needed: Iterable[Path] = ()) -> list[Leftover]:
    """What may go of a finished run. With `all_but_best` that is also the newest checkpoint, except for its state.json,
    if it is not the best one; those that the config keeps; and the compiled kernels. The checkpoints `needed` stay."""
    run, name = view.run, short_name(view.run)
    found = [*_checkpoints(view, set(needed), all_but_best=all_but_best)]
    for attempt in run.all_attempts()[:-1]:
        found += [Leftover(name, "log", path) for path in _entries(attempt.path) if LOG.fullmatch(path.name)
                  and path.is_file() and not path.is_symlink()]
    if all_but_best and run.compiled.is_dir():
        found.append(Leftover(name, "folder of compiled kernels", run.compiled))
    folders = [run.path, run.checkpoints, run.nondeterministic, *(attempt.path for attempt in run.all_attempts())]
    return found + [Leftover(name, "temporary file", path) for folder in folders for path in _entries(folder)
                    if TEMPORARY.fullmatch(path.name)]


def essential(view: View, *, all_but_best: bool) -> set[int]:
    """The steps of the checkpoints that have to be intact before others are removed: the best one and, unless it is to
    go or has gone (`all_but_best`), the newest one. Empty if that is not known, or if one of them is missing."""
    run, steps = view.run, saved_steps(view.run)
    progress = progress_at(checkpoint_path(run, steps[0])) if steps else None
    if progress is None or view.result is None or steps[0] != view.result.steps:
        return set()
    best = int(progress.best.get("step", steps[0]))
    gone = all_but_best or not (checkpoint_path(run, steps[0]) / "manifest.json").exists()
    kept = {best} if gone else {best, steps[0]}
    return kept if all((checkpoint_path(run, step) / "manifest.json").exists() for step in kept) else set()


def _checkpoints(view: View, needed: set[Path], *, all_but_best: bool) -> Iterator[Leftover]:
    """The checkpoints that may go, oldest first."""
    run, name = view.run, short_name(view.run)
    if not (kept := essential(view, all_but_best=all_but_best)):
        return
    newest, *older = saved_steps(run)
    if not all_but_best and (progress := progress_at(checkpoint_path(run, newest))):
        kept |= progress.kept_steps
    if linked := linked_checkpoint(run, "best"):
        needed = {*needed, linked}
    paths = {step: checkpoint_path(run, step) for step in reversed(older) if step not in kept}
    yield from (Leftover(name, "checkpoint", path, step) for step, path in paths.items() if path not in needed)
    yield from (Leftover(name, "quarantined checkpoint", path) for path in _entries(run.checkpoints)
                if path.name.startswith(QUARANTINED))
    last = checkpoint_path(run, newest)
    if all_but_best and newest not in kept and last not in needed:
        files = [path for path in _entries(last) if path.name != REMAINS]
        # the manifest first: without it the checkpoint counts as incomplete
        yield from (Leftover(name, f"file of the newest checkpoint, step {newest:,}", path)
                    for path in sorted(files, key=lambda path: path.name != "manifest.json"))


def needed_by(runs: Sequence[RunDir]) -> set[Path]:
    """The checkpoints from which runs are to start that have not saved one of their own (`initialize.weights`)."""
    found = set()
    for run in runs:
        if not saved_steps(run):
            with suppress(UserError, OSError):
                if weights := read(run.config).initialize.weights:
                    found.add(Path(weights))
    return found


def of_replays(runs: Path) -> list[Leftover]:
    """The folders of replays that were killed, or that have failed."""
    folder = runs.absolute() / ".replays"
    return [Leftover(folder.name, "replay", path) for path in _entries(folder)
            if path.is_dir() and not path.is_symlink() and _is_mine(path) and not _is_replaying(path)]


def _is_replaying(folder: Path) -> bool:
    """Whether a replay is running in its folder. Its command makes it, then locks it (`launch/replay/scratch.py`)."""
    if is_changing(RunDir(folder)) or not (RunDir(folder).lock.exists() or _is_old(folder, folder.parent)):
        return True
    with suppress(DamagedError, OSError):
        return any(running_evidence(View.read(run)) for run in all_runs(folder))
    return True  # damaged: it cannot be known


def of_commands(runs: Path) -> list[Leftover]:
    """Temporary files beside the runs that are old."""
    runs = runs.absolute()
    found = [path for path in _entries(runs) if TEMPORARY.fullmatch(path.name) and _is_mine(path)]
    return [Leftover(runs.name, "temporary file", path) for path in found if _is_old(path, runs)]


def _is_old(path: Path, folder: Path) -> bool:
    try:
        return file_system_time(folder) - path.lstat().st_mtime > OLD_SECONDS
    except OSError:
        return False


def _is_mine(path: Path) -> bool:
    try:
        return os.geteuid() in (0, path.lstat().st_uid)
    except OSError:
        return False


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, by name; nothing if it cannot be read, is a link, or does not exist."""
    try:
        return [] if folder.is_symlink() else sorted(folder.iterdir())
    except OSError:
        return []


