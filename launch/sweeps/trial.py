"""One trial of a sweep as a run: its config and plan, made from what all trials share when it starts."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from drumbeat.configs.load import Loaded, load
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.sweep import Sweep, SweepDir, Trial
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.runs.status import with_final_state
from drumbeat.launch.start.fork import Prefix, forked
from drumbeat.launch.start.resolve import resolve_resume
from drumbeat.launch.start.start import Start, start


def new_trial(folder: SweepDir, sweep: Sweep, trial: Trial) -> Start:
    """The start of a trial that has no run yet. Raises `UserError`."""
    run, shared = folder.run(sweep, trial.number), JobPlan.require(folder.plan)
    loaded, prefix = forked_trial(folder, sweep, trial, shared) if sweep.parent else (
        load(folder.config, trial.assignments), None)
    plan = dataclasses.replace(shared, run_dir=str(run.path), restarts=loaded.config.launch.restarts)
    return Start(run_dir=run, loaded=loaded, plan=plan, prefix=prefix, preflight=False)


def forked_trial(folder: SweepDir, sweep: Sweep, trial: Trial, shared: JobPlan) -> tuple[Loaded, Prefix]:
    """The config of a trial that is a fork, in the processes of the plan `shared`. Raises what `forked` raises."""
    return forked(RunDir(Path(sweep.parent)), str(sweep.at), [*sweep.changes, *trial.assignments],
                  shared_values(folder, shared))


def shared_values(folder: SweepDir, plan: JobPlan) -> dict[str, Any]:
    """The config values that give all trials the name of the sweep and the processes of a plan."""
    return {"name": folder.name} | backend_of(plan.backend).layout(plan)


def start_trial(folder: SweepDir, sweep: Sweep, trial: Trial) -> None:
    """Starts a trial, or resumes it where it ended, on this machine or in a SLURM job of its own; and returns. Raises
    `UserError`."""
    run = folder.run(sweep, trial.number)
    if run.plan.exists():
        spec = resolve_resume(_as_before(folder), str(run.path))
    else:
        spec = new_trial(folder, sweep, trial)
    start(spec, detach=True)


def view_of(folder: SweepDir, sweep: Sweep, number: int) -> View | None:
    """A trial's run, with the end that its launcher could not record; None if it has not been started. Raises
    `DamagedError`."""
    run = folder.run(sweep, number)
    return with_final_state(View.read(run)) if run.plan.exists() else None


def _as_before(folder: SweepDir) -> argparse.Namespace:
    """The arguments of a `resume` that changes nothing."""
    return argparse.Namespace(
        runs=str(folder.path.parent), words=[], name=None, gpus=None, procs=None, nodes=None, profile=None, debug=False,
        slurm=False, here=False, detach=True, dry_run=False, no_preflight=True, no_snapshot=False, new_code=False,
        take_over=False, trust=False, typed="drumbeat resume")
