"""Finding an existing run by its folder, id or name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError, nearest
from drumbeat.configs.load import read
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import find_checkpoint
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config

HOW_TO_NAME = "Give a run's folder, its id, or the name of an experiment for its latest run."


def find_run(text: str, runs: Path, *, starting: bool = False) -> RunDir:
    """The run that a folder, an id, a unique prefix of an id, or a name (the run to which `latest` leads) refers to.
    With `starting`, also a run whose plan is not written yet, because a command is checking it; a name then refers to
    it first. Raises `RunError`."""
    if not text.strip():
        raise RunError(Fault(what="no run given", where="command line", given=f"'{text}'", remedy=HOW_TO_NAME))
    beside = (runs / text, runs / text / "latest") if "/" in text else ()  # the form name/id of reports
    for folder in (Path(text), Path(text) / "latest", *beside):
        target = folder.readlink() if folder.is_symlink() else Path(folder.name)
        beside_it = folder.name != "latest" or len(target.parts) == 1
        if beside_it and is_run(folder, starting=starting):
            return RunDir((folder.parent / target).absolute())
    folders = _folders(runs)
    named = [path for path in folders if path.parent.name == text and is_run(path, starting=starting)]
    if named and not is_run(named[-1]):
        return RunDir(named[-1])
    if named:
        latest = named[-1].parent / "latest"
        newest = latest.readlink().name if latest.is_symlink() else ""
        return RunDir(next((path for path in named if path.name == newest), named[-1]))
    name, slash, end = text.rpartition("/")  # the form of `ls`: name/end of the id
    found = [path for path in folders if path.name.startswith(text) or path.name.endswith(f"-{text}")
             or (slash and path.parent.name == name and path.name.endswith(f"-{end}"))]
    found = [path for path in found if is_run(path, starting=starting)]
    if len(found) > 1:
        ids = [path.name for path in found]
        raise RunError(Fault(what=f"'{text}' is ambiguous: {len(found)} runs begin with it", where=str(runs),
                             given=", ".join(ids[-6:]) + (", ..." if len(ids) > 6 else ""),
                             remedy="Type more characters of the id."))
    if not found:
        names = {name for path in folders if is_run(path, starting=starting) for name in (path.name, path.parent.name)}
        raise RunError(Fault(what=f"there is no run '{text}'", where=str(runs.absolute()),
                             remedy=_nearest_run(text, names)))
    return RunDir(found[0].absolute())


def find_view(text: str, runs: Path) -> View:
    """The current view of a run. Raises `RunError`."""
    return View.read(find_run(text, runs))


def run_with_checkpoint(text: str, runs: Path, which: str | None) -> tuple[RunDir, Config]:
    """A run that has a checkpoint, and its config. Raises `RunError`."""
    run = find_run(text, runs)
    find_checkpoint(run, which)
    return run, read(run.config)


def all_runs(runs: Path, *, starting: bool = False) -> list[RunDir]:
    """All runs in a folder, oldest first; with `starting`, also those whose plan is not written yet."""
    return [RunDir(folder) for folder in _folders(runs) if is_run(folder, starting=starting)]


def _folders(runs: Path) -> list[Path]:
    """The folders that may be runs, by their ids: no link, and not looked into."""
    found = []
    for experiment in _entries(runs.absolute()):
        above = Path(experiment)
        found += [(entry.name, above) for entry in _entries(above) if entry.is_dir(follow_symlinks=False)]
    return [above / name for name, above in sorted(found)]


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    """What is in a folder; nothing if it cannot be read, or is none."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def is_run(folder: Path, *, starting: bool = False) -> bool:
    """Whether a folder is a run, even if one of its files is missing; with `starting`, even before its plan is
    written."""
    run = RunDir(folder)
    return os.access(run.plan, os.F_OK) or os.access(run.status, os.F_OK) or (
        starting and os.access(run.lock, os.F_OK))


def _nearest_run(text: str, names: set[str]) -> str:
    if not names:
        return "There are no runs here yet. --runs DIR selects another folder."
    remedy = nearest(text, names)
    newest = sorted(name for name in names if name[:8].isdigit())[-3:]
    return remedy if remedy.startswith("Did") else f"{HOW_TO_NAME} The newest: {', '.join(newest)}"
