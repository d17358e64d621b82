"""Starting a run: its code and its folder, the checks ahead of it, the job. All of it, or nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError, UserError, hang
from drumbeat.configs.load import Loaded
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import BackendName, Job
from drumbeat.configs.run.versions import Versions
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.contract import Submitted
from drumbeat.launch.plan.snapshot import Snapshot
from drumbeat.launch.start.describe import describe, summary


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is to be started."""

    run_dir: RunDir
    loaded: Loaded
    plan: JobPlan
    before: View | None = None
    """The run as it was, where it goes on; None where it is to be made."""
    file: Path | None = None
    """The config's file, for a new run of it."""
    model: RunDir | None = None
    """The run that this one repeats."""
    code: Path | None = None
    """The snapshot it runs from; None where it runs from the files as they are."""
    fill: Callable[[Path], None] | None = None
    """Makes that snapshot; None where it is there."""
    copied: str = ""
    """The code in words, for a dry run."""
    preflight: bool = True
    """Whether to look for faults first."""

    @property
    def new(self) -> bool:
        """Whether the run is to be made."""
        return self.before is None


def start(what: Start, *, dry_run: bool = False, detach: bool = False) -> int:
    """Checks, writes the folder and starts the job; or says what would be started. Its exit code, where it is
    watched. Raises `UserError`, and leaves everything as it was."""
    run_dir, plan = what.run_dir, what.plan
    backend = backend_of(plan.backend)
    request = backend.request(plan)
    if dry_run:
        print(describe(what.loaded, request, notes=[*what.loaded.notes, *backend.notes(plan)], code=what.copied))
        return 0

    backend.require(plan)
    _check_writable(run_dir)

    from drumbeat.launch.attempts.processes import ignoring_signals
    from drumbeat.launch.runs import attach as watch

    with _all_or_nothing(what):
        if what.fill and what.code:
            what.fill(what.code)
        if what.preflight and (expected := backend.preflight(request)):
            print(f"queue      {expected}", flush=True)
        versions = what.before.plan.versions if what.before else None
        if what.preflight and (what.new or what.fill):
            versions = _preflight(what)
        what = replace(what, plan=replace(plan, versions=versions))
        with ignoring_signals(signal.SIGINT):
            _write(what)
            watch.introduce(run_dir, summary(plan))
            if what.code:
                print(f"code       {Snapshot.require(what.code / 'snapshot.json').text()}", flush=True)
            for note in (*what.loaded.notes, *backend.notes(plan)):
                print(hang("note       ", note), flush=True)
            submitted = backend.submit(request)
            _write_job(run_dir, plan.backend, submitted)
    if submitted.work:
        submitted.work()
        print()
        return watch.conclude(View.read(run_dir))
    if backend.attached and not detach:
        return watch.follow(View.read(run_dir), submitted, what.before.attempt if what.before else None)
    watch.announce(run_dir, submitted, backend)
    return 0


def _preflight(what: Start) -> Versions:
    """Runs the preflight check with the run's own code, and prints what it found. Returns its versions."""
    from drumbeat.launch.start.preflight import check_room, facts_text, preflight

    with pointing_into(what.loaded, what.code):
        facts = preflight(what.loaded.config, what.plan)
        print(facts_text(facts), flush=True)
        if warning := check_room(what.run_dir.path, what.loaded.config, facts):
            print(f"note       {warning}", flush=True)
    return Versions.parse(facts["versions"])


def _write(what: Start) -> None:
    """The run's folder, with all that the workers need; for a run that goes on, its new plan and what else is new."""
    run_dir, plan, loaded = what.run_dir, what.plan, what.loaded
    run_dir.path.mkdir(parents=True, exist_ok=True)
    if what.new or any(not layer.origin.startswith("--") for layer in loaded.layers):
        write_text(run_dir.config, loaded.as_yaml())
    plan.write(run_dir.plan)
    _write_job(run_dir, plan.backend, Submitted(id=None))
    run_dir.write_status("pending", attempt=what.before.number if what.before else -1)
    link = run_dir.path.parent / f".latest.{os.getpid()}"
    link.symlink_to(run_dir.id)
    os.replace(link, run_dir.path.parent / "latest")


def _write_job(run_dir: RunDir, backend: BackendName, started: Submitted) -> None:
    """Where the run was started, for those who ask later whether it still runs."""
    Job(backend=backend, id=started.id, host=socket.gethostname(), pid=started.pid).write(run_dir.job)


@contextmanager
def _all_or_nothing(what: Start) -> Iterator[None]:
    """Where the run cannot be started, its folder is as it was before: gone, if it is a new run's."""
    run_dir = what.run_dir
    files = (run_dir.config, run_dir.plan, run_dir.status, run_dir.job)
    before = {file: file.read_text() for file in files if file.exists()}
    try:
        yield
    except BaseException as error:
        for file, text in before.items():
            write_text(file, text)
        if what.fill and what.code:
            shutil.rmtree(what.code, ignore_errors=True)
        if not before:
            shutil.rmtree(run_dir.path, ignore_errors=True)
            latest = run_dir.path.parent / "latest"
            if latest.is_symlink() and not latest.exists():
                latest.unlink()
            _remove_empty(run_dir.path.parent, run_dir.path.parent.parent)
        if isinstance(error, OSError):
            raise LaunchError(Fault(what=f"the run folder cannot be written: {error.strerror}",
                                    where=str(error.filename or run_dir.path),
                                    remedy="Choose another place for it: --runs DIR")) from error
        raise


def _remove_empty(*folders: Path) -> None:
    """runs/NAME and runs/, if they hold nothing."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def pointing_into(loaded: Loaded, code: Path | None = None) -> Iterator[None]:
    """Faults raised inside name a dotted key of the config; from here on they name the file and line it stands in. They
    name files of the code where a person would look for them, and not in the snapshot."""
    snapshot = Snapshot.read(code / "snapshot.json") if code else None
    try:
        yield
    except UserError as error:
        faults = [loaded.located(fault) for fault in error.faults]
        if code and snapshot:
            faults = [Fault(**{name: snapshot.live(text, code) for name, text in vars(fault).items()})
                      for fault in faults]
        raise type(error)(*faults) from None


def _check_writable(run_dir: RunDir) -> None:
    folder = run_dir.path
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        reason = "you may not write there" if folder.is_dir() else "it is no folder"
        raise LaunchError(Fault(what=f"the run folder cannot be made: {reason}", where=str(folder),
                                given=str(run_dir.path), remedy="Choose another place for runs: --runs DIR"))
