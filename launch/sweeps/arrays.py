"""The trials of a sweep as SLURM job arrays, cut where SLURM limits their size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.sweep import Sweep, SweepDir
from drumbeat.launch.backends.array import Array, array_request
from drumbeat.launch.backends.slurm import Slurm
from drumbeat.launch.slurm.client import SlurmUnreachableError, cancel_jobs, run_slurm

DEFAULT_SIZE = 1001
"""SLURM's MaxArraySize, unless a site has changed it: the numbers of tasks are smaller (slurm.conf(5))."""


def max_array_size() -> int:
    """The controller's MaxArraySize; the default if it does not answer."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", run_slurm("scontrol", "show", "config").text, re.MULTILINE)
    return max(1, int(found[1])) if found else DEFAULT_SIZE


def cut(folder: SweepDir, sweep: Sweep, numbers: Sequence[int], size: int) -> list[Array]:
    """The job arrays of these trials: the number of a task is less than `size`."""
    chunks = groupby(sorted(numbers), key=lambda number: number // size)
    return [Array(folder=folder.path, id=sweep.id, numbers=tuple(inside), offset=chunk * size, at_once=sweep.slots)
            for chunk, inside in chunks]


def arrays_text(sweep: Sweep, numbers: Sequence[int]) -> str:
    """The arrays in one line: '2 SLURM job arrays, 0-1000%8 and 1-499%8'."""
    arrays = cut(SweepDir(Path()), sweep, numbers, max_array_size())
    return (f"{len(arrays)} SLURM job array{'s' * (len(arrays) > 1)}, "
            f"{' and '.join(array.tasks for array in arrays)}")


def submit_arrays(folder: SweepDir, sweep: Sweep, numbers: Sequence[int]) -> list[str]:
    """Queues the job arrays of these trials and returns their ids. Of several with a limit on what runs at the same
    time, each starts when the one before has ended. If SLURM refuses one, none is left in the queue, and `LaunchError`
    is raised."""
    plan, jobs = JobPlan.require(folder.plan), list[str]()
    (folder.path / "submitit").mkdir(exist_ok=True)
    try:
        for array in cut(folder, sweep, numbers, max_array_size()):
            after = jobs[-1] if jobs and sweep.slots else ""
            jobs.append(str(Slurm().submit(array_request(plan, replace(array, after=after))).id))
    except LaunchError as error:
        if jobs:
            with suppress(SlurmUnreachableError):
                cancel_jobs(*jobs)
        fault = error.faults[0]
        raise LaunchError(replace(fault, what=f"{fault.what}: a job array of the sweep's {len(numbers):,} trials, "
                                              "each of which is a job")) from None
    return jobs
