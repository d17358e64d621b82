"""Finding a sweep by its name, and commands for it in messages."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError, nearest
from drumbeat.configs.layers import short
from drumbeat.configs.run.sweep import SweepDir
from drumbeat.launch.backends.typed import program


def find_sweep(text: str, runs: Path) -> SweepDir | None:
    """The sweep that a name or a folder refers to; None if it is none, so that it may be a run."""
    for folder in (Path(text), runs / text) if text.strip() else ():
        if os.path.lexists(folder / "sweep.json"):
            return SweepDir(folder.absolute())
    return None


def require_sweep(text: str, runs: Path) -> SweepDir:
    """The sweep that a name or a folder refers to. Raises `RunError`."""
    if found := find_sweep(text, runs):
        return found
    raise RunError(Fault(what=f"there is no sweep '{text}'", where=str(runs.absolute()),
                         remedy=nearest(text, [one.name for one in all_sweeps(runs)])))


def all_sweeps(runs: Path) -> Iterator[SweepDir]:
    """The sweeps in a folder of runs, by name."""
    return (SweepDir(path.parent.absolute()) for path in sorted(runs.glob("*/sweep.json")))


def sweep_command(verb: str, folder: SweepDir) -> str:
    """A command for a sweep, to be typed in the current folder."""
    beside = folder.path.parent == Path("runs").absolute()
    return f"{program('drumbeat')} {verb} {shlex.quote(folder.name if beside else short(folder.path))}"
