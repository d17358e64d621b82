"""What a person types to do something with a run: commands that stand in messages, ready to paste."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from drumbeat.configs.layers import short
from drumbeat.configs.run.folder import RunDir


def handle(run: RunDir) -> str:
    """What to type for a run in the current folder: its id where the runs are in runs/, else its folder."""
    beside = run.path.parent.parent == Path("runs").absolute()
    return run.id if beside else short(run.path)


def program(name: str) -> str:
    """How to call a program that was installed beside this Python, whether or not its folder is on the PATH."""
    beside = Path(sys.executable).with_name(name)
    on_path = shutil.which(name)
    return name if not beside.exists() or (on_path and Path(on_path).samefile(beside)) else (
        str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside))


def command(verb: str, run: RunDir) -> str:
    """What to type in the current folder to do something with a run."""
    return f"{program('drumbeat')} {verb} {handle(run)}"
