"""What surrounds the start of a run: its folder and its lock; and if it cannot be started, its folder as it was before.

Only what this process has made or written is removed or restored: it holds the run's lock meanwhile.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from drumbeat.configs.errors import Fault, LaunchError, RunError
from drumbeat.configs.output_file import disk_fault
from drumbeat.configs.run.files import DamagedError, write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import changing, is_changing
from drumbeat.configs.run.processes import process_space
from drumbeat.configs.run.records import Change
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import running_evidence


@dataclass
class Termination:
    """The handler of SIGTERM during the preparation."""

    deferred: bool = False
    """Whether the signal waits until the preparation is over: from the first file that is written to the recorded
    job."""
    received: signal.Signals | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.deferred:
            print("terminated", file=sys.stderr)
            raise SystemExit(128 + number)
        self.received = signal.Signals(number)


@contextmanager
def preparing(run: RunDir, command: str, *, previous: View | None, code: Path | None) -> Iterator[Termination]:
    """Makes the folder of a new run, or takes the run as it was when this process read it (`previous`), and holds its
    lock. On an error, including Ctrl-C and SIGTERM, restores its files and removes the folder `code`, if it did not
    exist before. Raises `RunError` if another command is changing or has changed the run, and `LaunchError` if the
    folder cannot be written."""
    termination = Termination()
    before = {number: signal.signal(number, termination) for number in (signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) is not signal.SIG_IGN}  # as in `nohup drumbeat run ...`
    try:
        if previous is None:
            remove_abandoned(run.path.parent)
        with _folder(run, new=previous is None), changing(run, command):
            if previous:
                _check_unchanged(previous)
            with _restored_on_error(run, code):
                yield termination
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if termination.received:
            signal.raise_signal(termination.received)


def remove_abandoned(folder: Path) -> None:
    """Removes what is left of new runs in `folder` whose commands were killed before they had written a plan."""
    for path in [*folder.glob("[0-9]*-*")]:
        run = RunDir(path)
        with suppress(DamagedError, OSError):
            abandoned = not path.is_symlink() and not run.plan.exists() and not run.status.exists()
            change = Change.read(run.lock) if abandoned else None
            if change and change.space == process_space() and not is_changing(run):
                shutil.rmtree(path, ignore_errors=True)


def _check_unchanged(previous: View) -> None:
    """Raises `RunError` if another command has started or ended the run since it was read."""
    now = View.read(previous.run)
    if (now.job, now.number) != (previous.job, previous.number):
        raise RunError(Fault(what=f"run {now.run.id} has been started by another command meanwhile",
                             where=str(now.run.path), given=running_evidence(now) or f"state: {now.state}",
                             remedy="Look at it, and try again."))


@contextmanager
def _folder(run: RunDir, *, new: bool) -> Iterator[None]:
    """The folder of a new run, which is removed on an error, with the folders above it that are empty then."""
    try:
        if new:
            run.path.mkdir(parents=True)
        yield
    except BaseException as error:
        fault = disk_fault(error, Path(error.filename or run.path)) if isinstance(error, OSError) else None
        if new:  # which may free the full disk
            shutil.rmtree(run.path, ignore_errors=True)
            _remove_empty(run.path.parent, run.all_runs)
        if isinstance(error, OSError):
            raise LaunchError(fault or Fault(what=f"the run folder cannot be written: {error.strerror or error}",
                                             where=str(error.filename or run.path),
                                             remedy="Choose another folder: --runs DIR")) from error
        raise


@contextmanager
def _restored_on_error(run: RunDir, code: Path | None) -> Iterator[None]:
    """On an error, restores the run's files as they are now, and removes the folder `code` if it does not exist now."""
    files = (run.config, run.plan, run.status, run.job)
    before = {file: file.read_text(encoding="utf-8") for file in files if file.exists()}
    made = code if code and not code.exists() else None
    try:
        yield
    except BaseException:
        for file, text in before.items():
            write_text(file, text)
        if made:
            shutil.rmtree(made, ignore_errors=True)
        raise


def _remove_empty(*folders: Path) -> None:
    """Removes runs/NAME and runs/ if they are empty."""
    for folder in folders:
        with suppress(OSError):  # it is not empty, or another command makes a run in it
            folder.rmdir()
