"""Starting a sweep: its folder, the checks before it, and its queue on this machine or its job arrays on SLURM. If it
cannot be started, nothing is left behind."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError, RunError, hang
from drumbeat.configs.layers import short
from drumbeat.configs.load import plain
from drumbeat.configs.output_file import disk_fault
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.sweep import Sweep, SweepDir, Trial
from drumbeat.configs.secrets import literal_secrets
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.start.describe import summary
from drumbeat.launch.start.start import checked
from drumbeat.launch.sweeps.arrays import arrays_text, submit_arrays
from drumbeat.launch.sweeps.find import sweep_command
from drumbeat.launch.sweeps.queue import start_queue
from drumbeat.launch.sweeps.resolve import Planned

SHOWN = 3
"""Trials that the plan names at its beginning, and at its end."""


def start_planned(planned: Planned, *, dry_run: bool = False) -> int:
    """Starts a new sweep, or the trials that one gets in addition. Returns the exit code. Raises `UserError` and leaves
    everything as it was."""
    return (extend_sweep if planned.before else start_sweep)(planned, dry_run=dry_run)


def start_sweep(planned: Planned, *, dry_run: bool = False) -> int:
    """Checks the sweep, writes its folder, and starts its trials; or prints what would be started. Returns the exit
    code. Raises `UserError` and leaves everything as it was."""
    spec, sweep, folder = planned.spec, planned.sweep, planned.folder
    backend = backend_of(sweep.backend)
    print(plan_text(planned, sweep.trials), flush=True)
    for note in spec.loaded.notes:
        print(hang("note       ", note), flush=True)
    if dry_run:
        print("\n# Dry run: nothing was started or written.")
        return 0
    backend.check_startable(spec.plan)
    with _new_folder(folder.path):
        versions = None
        for loaded in planned.checks if spec.preflight else ():
            found = checked(dataclasses.replace(spec, loaded=loaded), backend.request(spec.plan))
            spec, versions = dataclasses.replace(spec, make_code=None), versions or found
        if spec.make_code and spec.code:
            spec.make_code(spec.code)
        config = spec.loaded
        private = any(literal_secrets(plain(one.config)) for one in (config, *planned.checks))
        write_text(folder.config, config.as_yaml(), private=private)
        for file in (folder.record, folder.log) if private else ():  # later writes keep that only the owner may read it
            write_text(file, "", private=True)
        dataclasses.replace(spec.plan, versions=versions).write(folder.plan)
        sweep.write(folder.record)
        submit(folder, sweep, [trial.number for trial in sweep.trials])
    print_commands(folder)
    return 0


def extend_sweep(planned: Planned, *, dry_run: bool = False) -> int:
    """Checks the trials that a sweep gets in addition, and starts them. Returns the exit code. Raises `UserError` and
    leaves everything as it was."""
    folder, spec = planned.folder, planned.spec
    new = planned.sweep.trials[planned.before:]
    if not new:
        print(f"{folder.name} has these trials already")
        return 0
    print(plan_text(planned, new), flush=True)
    if dry_run:
        print("\n# Dry run: nothing was started or written.")
        return 0
    for loaded in planned.checks if spec.preflight else ():
        checked(dataclasses.replace(spec, loaded=loaded), backend_of(spec.plan.backend).request(spec.plan))
    with folder.changing() as now:
        if len(now.trials) != planned.before:
            raise RunError(Fault(what="another command has extended the sweep meanwhile", where=str(folder.path),
                                 remedy="Look at it, and try again."))
        sweep = dataclasses.replace(now, space=planned.sweep.space, samples=planned.sweep.samples,
                                    trials=(*now.trials, *new), halted=False)
        sweep.write(folder.record)
    submit(folder, sweep, [trial.number for trial in new])
    print_commands(folder)
    return 0


def submit(folder: SweepDir, sweep: Sweep, numbers: Sequence[int]) -> None:
    """Has these trials started: by the queue on this machine, or as job arrays. Raises `LaunchError`."""
    if backend_of(sweep.backend).on_slurm:
        jobs = submit_arrays(folder, sweep, numbers)
        with folder.changing() as now:
            dataclasses.replace(now, jobs=(*now.jobs, *jobs)).write(folder.record)
        print(f"{'SLURM jobs' if len(jobs) > 1 else 'SLURM job':<11}{', '.join(jobs)}", flush=True)
    else:
        print(f"{'queue':<11}process {start_queue(folder)}", flush=True)


def print_commands(folder: SweepDir) -> None:
    """The commands to type next."""
    print("\n" + "\n".join(sweep_command(verb, folder) for verb in ("status", "report", "stop")), flush=True)


def plan_text(planned: Planned, trials: Sequence[Trial]) -> str:
    """The plan of these trials: how many, the first and last ones, and where they run."""
    sweep, spec = planned.sweep, planned.spec
    count = len(trials)
    more = "more " * (count < len(sweep.trials))
    rows = [("sweep", f"{planned.folder.name}: {count:,} {more}trial{'s' * (count != 1)}"),
            ("each", summary(spec.plan)),
            ("where", arrays_text(sweep, [trial.number for trial in trials]) if backend_of(sweep.backend).on_slurm
             else f"a queue on this machine, {sweep.slots} at a time"),
            ("varies", "\n".join(f"{key}={text}" for key, text in sweep.space.items())),
            ("preflight", f"{len(planned.checks)} combination{'s' * (len(planned.checks) > 1)} of model and data"
             + (f", and {planned.unchecked:,} more are not checked" if planned.unchecked else "")
             if spec.preflight else "none"),
            ("folder", short(planned.folder.path))]
    if sweep.parent:
        rows.insert(1, ("fork of", f"{RunDir(Path(sweep.parent)).id} at step {sweep.at:,}"))
    if sweep.samples is not None:
        rows.insert(1, ("draws", f"{sweep.samples:,}, seed {sweep.seed}"))
    head = "\n".join(hang(f"{label:<11}", text) for label, text in rows)
    shown = list(trials) if count <= 2 * SHOWN + 1 else [*trials[:SHOWN], None, *trials[-SHOWN:]]
    values = f"values that {sweep.sampler} chooses"
    return "\n".join([head, *(f"trial {one.number:<5}{' '.join(one.assignments) or values}" if one else "..."
                              for one in shown)])


@contextmanager
def _new_folder(path: Path) -> Iterator[None]:
    """The folder of a new sweep, which is removed on an error, and runs/ with it if it is empty then. Another command
    may have made it meanwhile: then it is left as it is. Raises `LaunchError`."""
    made = False
    try:
        path.mkdir(parents=True)
        made = True
        yield
    except BaseException as error:
        if made:
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):
                path.parent.rmdir()
        if isinstance(error, OSError):
            raise LaunchError(disk_fault(error, Path(error.filename or path)) or Fault(
                what=f"the sweep's folder cannot be written: {error.strerror or error}", where=str(path),
                remedy="Choose another folder: --runs DIR")) from error
        raise
