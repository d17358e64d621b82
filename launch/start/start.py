"""Starting a run: its code and its folder, the checks before it, and the job. If it fails, nothing is left behind."""

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
from drumbeat.configs.terminal import any_output
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.contract import Submitted
from drumbeat.launch.plan.snapshot import Snapshot
from drumbeat.launch.start.describe import describe, summary


@dataclass(frozen=True, kw_only=True)
class Start:
    """A run that is about to be started."""

    run_dir: RunDir
    loaded: Loaded
    plan: JobPlan
    previous: View | None = None
    """The run as it was, for a resume; None for a new run."""
    file: Path | None = None
    """The config file, for a new run."""
    source: RunDir | None = None
    """The run that this one repeats."""
    code: Path | None = None
    """The folder of the snapshot it runs from; None if it runs the original files."""
    make_code: Callable[[Path], None] | None = None
    """Makes that snapshot; None if it exists."""
    code_text: str = ""
    """A description of the code, for a dry run."""
    preflight: bool = True
    """Whether to run the preflight check."""

    @property
    def is_new(self) -> bool:
        """Whether this is a new run."""
        return self.previous is None


def start(spec: Start, *, dry_run: bool = False, detach: bool = False) -> int:
    """Checks the run, writes its folder and starts the job; or prints what would be started. Returns the exit code.
    Raises `UserError` and leaves everything as it was."""
    run_dir, plan = spec.run_dir, spec.plan
    backend = backend_of(plan.backend)
    request = backend.request(plan)
    if dry_run:
        print(describe(spec.loaded, request, notes=[*spec.loaded.notes, *backend.notes(plan)], code=spec.code_text))
        return 0

    backend.check_startable(plan)
    _check_writable(run_dir)

    from drumbeat.launch.attempts.processes import ignoring_signals
    from drumbeat.launch.runs import attach as watch

    for note in spec.loaded.notes:  # ahead of the checks, whose errors they may explain
        print(hang("note       ", note), flush=True)
    with _undone_on_error(spec):
        if spec.make_code and spec.code:
            spec.make_code(spec.code)
        if spec.preflight and (expected := backend.preflight(request)):
            print(f"queue      {expected}", flush=True)
        versions = spec.previous.plan.versions if spec.previous else None
        if spec.preflight and (spec.is_new or spec.make_code):
            versions = _preflight(spec)
        spec = replace(spec, plan=replace(plan, versions=versions))
        with ignoring_signals(signal.SIGINT):
            _write(spec)
            watch.print_header(run_dir, summary(plan))
            if spec.code:
                print(hang("code       ", Snapshot.require(spec.code / "snapshot.json").text()), flush=True)
            for note in backend.notes(plan):
                print(hang("note       ", note), flush=True)
            submitted = backend.submit(request)
            _write_job(run_dir, plan.backend, submitted)
    if submitted.work:
        with any_output():
            submitted.work()
        print()
        return watch.print_end(View.read(run_dir))
    if backend.attached and not detach:
        return watch.follow(View.read(run_dir), submitted, spec.previous.attempt if spec.previous else None)
    watch.print_commands(run_dir, submitted, backend)
    return 0


def _preflight(spec: Start) -> Versions:
    """Runs the preflight check with the code of the run, and prints its facts. Returns its versions."""
    from drumbeat.launch.start.preflight import check_disk_space, facts_text, preflight

    with locating_faults(spec.loaded, spec.code):
        facts = preflight(spec.loaded.config, spec.plan)
        print(facts_text(facts), flush=True)
        if warning := check_disk_space(spec.run_dir.path, spec.loaded.config, facts):
            print(f"note       {warning}", flush=True)
    return Versions.parse(facts["versions"])


def _write(spec: Start) -> None:
    """Writes the run's folder with everything that the workers need; for a resume, whatever changes."""
    run_dir, plan, loaded = spec.run_dir, spec.plan, spec.loaded
    run_dir.path.mkdir(parents=True, exist_ok=True)
    if spec.is_new or any(not layer.origin.startswith("--") for layer in loaded.layers):
        write_text(run_dir.config, loaded.as_yaml())
    plan.write(run_dir.plan)
    _write_job(run_dir, plan.backend, Submitted(id=None))
    run_dir.write_status("pending", attempt=spec.previous.number if spec.previous else -1)
    link = run_dir.path.parent / f".latest.{os.getpid()}"
    link.symlink_to(run_dir.id)
    os.replace(link, run_dir.path.parent / "latest")


def _write_job(run_dir: RunDir, backend: BackendName, started: Submitted) -> None:
    """Records where the run was started."""
    Job(backend=backend, id=started.id, host=socket.gethostname(), pid=started.pid).write(run_dir.job)


@contextmanager
def _undone_on_error(spec: Start) -> Iterator[None]:
    """If the run cannot be started, restores its folder; removes that of a new run."""
    run_dir = spec.run_dir
    files = (run_dir.config, run_dir.plan, run_dir.status, run_dir.job)
    before = {file: file.read_text(encoding="utf-8") for file in files if file.exists()}
    try:
        yield
    except BaseException as error:
        for file, text in before.items():
            write_text(file, text)
        if spec.make_code and spec.code:
            shutil.rmtree(spec.code, ignore_errors=True)
        if not before:
            shutil.rmtree(run_dir.path, ignore_errors=True)
            latest = run_dir.path.parent / "latest"
            if latest.is_symlink() and not latest.exists():
                latest.unlink()
            _remove_empty(run_dir.path.parent, run_dir.path.parent.parent)
        if isinstance(error, OSError):
            raise LaunchError(Fault(what=f"the run folder cannot be written: {error.strerror}",
                                    where=str(error.filename or run_dir.path),
                                    remedy="Choose another folder: --runs DIR")) from error
        raise


def _remove_empty(*folders: Path) -> None:
    """Removes runs/NAME and runs/ if they are empty."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def locating_faults(loaded: Loaded, code: Path | None = None) -> Iterator[None]:
    """Adds file and line to faults raised inside that name a dotted key of the config, and replaces paths in the
    snapshot by those of the original files."""
    snapshot = Snapshot.read(code / "snapshot.json") if code else None
    try:
        yield
    except UserError as error:
        faults = [loaded.located(fault) for fault in error.faults]
        if code and snapshot:
            faults = [Fault(**{name: snapshot.with_original_paths(text, code) for name, text in vars(fault).items()})
                      for fault in faults]
        raise type(error)(*faults) from None


def _check_writable(run_dir: RunDir) -> None:
    folder = run_dir.path
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        reason = "permission denied" if folder.is_dir() else "it is not a folder"
        raise LaunchError(Fault(what=f"the run folder cannot be created: {reason}", where=str(folder),
                                given=str(run_dir.path), remedy="Choose another folder for runs: --runs DIR"))
