"""What the script of a job array runs before the launchers: makes the run of a trial, or hands the run to this job.

    python -m drumbeat.launch.sweeps.task FOLDER NUMBER

Its exit code is 3 if there is nothing to do: the trial has ended, another job runs it, or the sweep was stopped.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from drumbeat.configs.errors import UserError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.processes import process_space
from drumbeat.configs.run.records import Job
from drumbeat.configs.run.sweep import Sweep, SweepDir
from drumbeat.launch.backends.array import NOTHING
from drumbeat.launch.backends.task import run_node
from drumbeat.launch.slurm.client import join_id, split_id
from drumbeat.launch.slurm.job import job_id
from drumbeat.launch.start.start import write
from drumbeat.launch.sweeps.trial import new_trial, view_of

RECORD_SECONDS = 60.0
"""Seconds to wait until the command that has submitted the array has recorded its id."""


def prepare(folder: SweepDir, number: int) -> int:
    """Makes the trial's run the run of this job. Returns the exit code."""
    sweep = _recorded(folder)
    job = join_id(job_id(), next((split_id(one)[1] for one in sweep.jobs if _is_mine(one)), ""))
    run = folder.run(sweep, number)
    if sweep.halted:
        return NOTHING
    if not run.plan.exists():
        run.path.mkdir(parents=True, exist_ok=True)
        spec = new_trial(folder, sweep, sweep.trials[number])
        if spec.prefix:
            spec.prefix.make(run)
        write(spec)
    elif (view := view_of(folder, sweep, number)) and view.job and view.job.id not in (None, job):
        if not view.ended or view.state == "finished":
            return NOTHING
        run.write_status("pending", attempt=view.number)
    elif view and view.job and view.job.id == job:
        return 0  # SLURM has queued this job again
    Job(backend=sweep.backend, id=job, host=socket.gethostname(), space=process_space(), time=time.time()).write(
        run.job)
    _write_pickle(run)
    return 0


def _recorded(folder: SweepDir) -> Sweep:
    """The sweep, once it names this job's array, if that is soon."""
    until = time.monotonic() + RECORD_SECONDS
    while not any(map(_is_mine, (sweep := folder.read()).jobs)) and time.monotonic() < until:
        time.sleep(0.2)
    return sweep


def _is_mine(array: str) -> bool:
    """Whether this job is a task of an array."""
    return split_id(array)[0] == os.environ["SLURM_ARRAY_JOB_ID"]


def _write_pickle(run: RunDir) -> None:
    """What submitit loads on each node of the job: see `launch/backends/task.py`."""
    from submitit.core.utils import DelayedSubmission, JobPaths

    run.submitit.mkdir(exist_ok=True)
    DelayedSubmission(run_node, str(run.path)).dump(JobPaths(run.submitit, job_id()).submitted_pickle)


def main(path: str, number: str) -> int:
    """Prepares a trial; an error is one screen in the job's log."""
    folder = SweepDir(Path(path))
    try:
        return prepare(folder, int(number))
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        with folder.changing() as sweep:
            replace(sweep, refused=sweep.refused | {number: str(error)}).write(folder.record)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
