"""Whose a run is: commands that execute its code or build its targets ask for --trust if another user may have written
them.

A run that was downloaded or copied belongs to whoever did so, and is not recognized.
"""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.layers import short
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.sweep import SweepDir
from drumbeat.configs.text_fields import user_name
from drumbeat.launch.plan.snapshot import newest_code


def check_trusted(run: RunDir | SweepDir, args: argparse.Namespace) -> None:
    """Raises `RunError` if another user may have written what this command would execute, and --trust is not given."""
    if not args.trust:
        check_owner(run, "this command", f"{args.typed} --trust")


def check_owner(run: RunDir | SweepDir, who: str, how: str) -> None:
    """Raises `RunError` if another user may have written what `who` would execute of a run or a sweep. `how` says how
    to trust them."""
    for path in _executed(run):
        found = path.lstat()
        foreign, writable = found.st_uid not in (os.geteuid(), 0), not stat.S_ISLNK(found.st_mode) and (
            found.st_mode & stat.S_IWOTH)
        if foreign or writable:
            given = (f"owner: {user_name(found.st_uid)} (uid {found.st_uid})" if foreign else
                     "every user may write it (mode o+w)")
            raise RunError(Fault(what=f"{who} would execute the code and config of {run.path.name}, and another user "
                                      f"{'has' if foreign else 'may have'} written them", where=short(path),
                                 given=given, remedy=f"If you trust them: {how}"))


def _executed(run: RunDir | SweepDir) -> Iterator[Path]:
    """What a command that executes a run reads: its folder, config, plan and pickles, and all of its code; of a sweep,
    its record, too."""
    more = run.record if isinstance(run, SweepDir) else run.submitit
    yield from (path for path in (run.path, run.config, run.plan, more) if os.path.lexists(path))
    if code := newest_code(run.path):
        yield code
        for folder, folders, files in os.walk(code):
            yield from (Path(folder, name) for name in (*folders, *files))
