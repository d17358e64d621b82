"""Starting a run: its code and its folder, the checks before it, and the job. If it fails, nothing is left behind."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError, UserError, hang
from drumbeat.configs.layers import short
from drumbeat.configs.load import Loaded, plain
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import lock_problem
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.processes import process_space
from drumbeat.configs.run.records import BackendName, Job
from drumbeat.configs.run.versions import Versions
from drumbeat.configs.run.view import View
from drumbeat.configs.secrets import literal_secrets
from drumbeat.configs.terminal import any_output
from drumbeat.launch.attempts.processes import ignoring_signals
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.contract import Request, Submitted
from drumbeat.launch.plan.snapshot import Snapshot
from drumbeat.launch.start.describe import describe, summary
from drumbeat.launch.start.fork import Prefix
from drumbeat.launch.start.preparing import preparing


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
    prefix: Prefix | None = None
    """For a fork, what it has from its parent."""
    make_code: Callable[[Path], None] | None = None
    """Makes that snapshot; None if it exists."""
    code_text: str = ""
    """A description of the code, for a dry run."""
    preflight: bool = True
    """Whether to run the preflight check."""
    changed: bool = False
    """For a resume, whether its config has changed so that the result depends on it."""

    @property
    def is_new(self) -> bool:
        """Whether this is a new run."""
        return self.previous is None

    @property
    def command(self) -> str:
        """The command that starts it."""
        return "resume" if self.previous else "fork" if self.prefix else "rerun" if self.source else "run"


def start(spec: Start, *, dry_run: bool = False, detach: bool = False) -> int:
    """Checks the run, writes its folder and starts the job; or prints what would be started. Returns the exit code.
    Raises `UserError` and leaves everything as it was."""
    run_dir, plan = spec.run_dir, spec.plan
    backend = backend_of(plan.backend)
    request = backend.request(plan)
    if dry_run:
        print(describe(spec.loaded, request, notes=[*spec.loaded.notes, *backend.notes(request)], code=spec.code_text))
        return 0

    backend.check_startable(plan)
    _check_writable(run_dir)

    from drumbeat.launch.runs import attach as watch

    attached = backend.attached and not detach
    with watch.terminations() if attached else nullcontext() as received:
        return _start(spec, request, received)


def _start(spec: Start, request: Request, received: list[int] | None) -> int:
    """Starts the job, and stays until its end if it is attached: then `received` are the SIGTERMs that have come
    since."""
    from drumbeat.launch.runs import attach as watch

    run_dir, plan, backend = spec.run_dir, spec.plan, backend_of(spec.plan.backend)
    for note in spec.loaded.notes:  # ahead of the checks, whose errors they may explain
        print(hang("note       ", note), flush=True)
    with preparing(run_dir, spec.command, previous=spec.previous, code=spec.code) as termination:
        if spec.prefix:
            spec.prefix.make(run_dir)
        versions = checked(spec, request)
        termination.deferred = True
        with ignoring_signals(signal.SIGINT):
            submitted = _submit(replace(spec, plan=replace(plan, versions=versions)), request)
    if submitted.work:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until the training handles it
        if received:
            signal.raise_signal(signal.SIGTERM)
        with any_output():
            submitted.work()
        print()
        return watch.print_end(View.read(run_dir))
    if received is not None:
        before = spec.previous.attempt if spec.previous else None
        return watch.follow(View.read(run_dir), submitted, before, received)
    watch.print_commands(run_dir, submitted, backend)
    return 0


def checked(spec: Start, request: Request) -> Versions | None:
    """Makes the copy of the code, and checks the run with it. Returns its versions, if they are known."""
    if spec.make_code and spec.code:
        spec.make_code(spec.code)
    if spec.preflight and (expected := backend_of(spec.plan.backend).preflight(request)):
        print(f"queue      {expected}", flush=True)
    if spec.preflight and (spec.is_new or spec.make_code or spec.changed):
        return _preflight(spec)
    return spec.previous.plan.versions if spec.previous else spec.plan.versions


def _submit(spec: Start, request: Request) -> Submitted:
    """Writes the run's folder and starts the job."""
    from drumbeat.launch.runs import attach as watch

    run_dir, plan = spec.run_dir, spec.plan
    backend = backend_of(plan.backend)
    write(spec)
    watch.print_header(run_dir, summary(plan))
    if spec.code:
        print(hang("code       ", Snapshot.require(spec.code / "snapshot.json").text()), flush=True)
    for note in filter(None, [*backend.notes(request), lock_problem(run_dir.path)]):
        print(hang("note       ", note), flush=True)
    submitted = backend.submit(request)
    try:
        _write_job(run_dir, plan.backend, submitted)
    except BaseException:
        with suppress(Exception):  # the first error says more
            backend.end(View.read(run_dir))
        raise
    _link_latest(run_dir)
    return submitted


def _link_latest(run_dir: RunDir) -> None:
    """Makes runs/NAME/latest lead to this run. If that is impossible, a note says so."""
    latest = run_dir.path.parent / "latest"
    link = latest.with_name(f".latest.{secrets.token_hex(4)}")
    try:
        link.symlink_to(run_dir.id)
        os.replace(link, latest)
    except OSError as error:
        print(hang("note       ", f"{short(latest)} does not lead to this run: {error.strerror}"), flush=True)
        with suppress(OSError):
            link.unlink()


def _preflight(spec: Start) -> Versions:
    """Runs the preflight check with the code of the run, and prints its facts. Returns its versions."""
    from drumbeat.launch.start.preflight import check_disk_space, facts_text, preflight

    with locating_faults(spec.loaded, spec.code):
        facts = preflight(spec.loaded.config, spec.plan)
        print(facts_text(facts), flush=True)
        warning = check_disk_space(spec.run_dir.path, spec.loaded.config, facts)
    unchecked = backend_of(spec.plan.backend).unchecked(spec.plan, spec.loaded.config)
    for note in filter(None, [warning, *unchecked]):
        print(hang("note       ", note), flush=True)
    return Versions.parse(facts["versions"])


def write(spec: Start) -> None:
    """Writes the run's folder with everything that the workers need; for a resume, whatever changes."""
    run_dir, plan, loaded = spec.run_dir, spec.plan, spec.loaded
    if spec.is_new or any(not layer.origin.startswith("--") for layer in loaded.layers):
        write_text(run_dir.config, loaded.as_yaml(), private=bool(literal_secrets(plain(loaded.config))))
    plan.write(run_dir.plan)
    _write_job(run_dir, plan.backend, Submitted(id=None))
    run_dir.write_status("pending", attempt=spec.previous.number if spec.previous else -1)


def _write_job(run_dir: RunDir, backend: BackendName, started: Submitted) -> None:
    """Records where the run was started."""
    Job(backend=backend, id=started.id, host=socket.gethostname(), space=process_space(), time=time.time(),
        pid=started.pid).write(run_dir.job)


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
