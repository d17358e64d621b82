"""Commands in messages, ready to paste into a shell."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from drumbeat.configs.layers import short
from drumbeat.configs.run.folder import RunDir


def handle(run: RunDir) -> str:
    """How to name a run in the current folder: its id if it is in ./runs, otherwise its folder."""
    beside = run.all_runs == Path("runs").absolute()
    return shlex.quote(run.id if beside else short(run.path))


def program(name: str) -> str:
    """How to call a program that is installed beside this Python, on the PATH or not."""
    beside = Path(sys.executable).with_name(name)
    on_path = shutil.which(name)
    return name if not beside.exists() or (on_path and Path(on_path).samefile(beside)) else (
        str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside))


def command(verb: str, run: RunDir) -> str:
    """A command for a run, to be typed in the current folder."""
    return f"{program('drumbeat')} {verb} {handle(run)}"
