"""A SLURM job array: one job for many runs that differ only in their configs, as the trials of a sweep.

The array's script is that of a single run, with the run's folder in a variable. Each task first has the folder of its
run made (`launch/sweeps/task.py`), so a run exists once its task has started.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.backends.contract import Request
from drumbeat.launch.backends.exclusions import exclusions
from drumbeat.launch.backends.script import python_words, with_backslashes
from drumbeat.launch.backends.slurm import sbatch_parameters

TASK = "drumbeat.launch.sweeps.task"
NOTHING = 3
"""The exit code of `TASK` if there is nothing to do for a run: it has ended, or another job runs it."""


@dataclass(frozen=True)
class Array:
    """Some runs of a folder."""

    folder: Path
    """The folder of the runs."""
    id: str
    """The run of number 7 is FOLDER/ID-0007."""
    numbers: Sequence[int]
    """Of the runs, ascending."""
    offset: int = 0
    """What SLURM's number of a task is less than that of its run, because SLURM limits it."""
    at_once: int | None = None
    """The number of tasks that run at the same time; None for no limit."""
    after: str = ""
    """The array that has to end first; '' for none."""

    @property
    def tasks(self) -> str:
        """The value of sbatch's --array: 0-9,12%4."""
        found = [number - self.offset for number in self.numbers]
        starts = [found[0], *(two for one, two in pairwise(found) if two != one + 1)]
        ends = [*(one for one, two in pairwise(found) if two != one + 1), found[-1]]
        parts = (f"{start}-{end}" if end > start else str(start) for start, end in zip(starts, ends, strict=True))
        return ",".join(parts) + (f"%{self.at_once}" if self.at_once else "")


def array_request(plan: JobPlan, array: Array) -> Request:
    """The request for the runs of an array; `plan` is that of one of them."""
    from submitit.slurm.slurm import _make_sbatch_string  # a pure function that works without SLURM

    bad = exclusions(plan)
    parameters = sbatch_parameters(plan, exclude=bad.nodes) | {"comment": f"{array.id}@{array.offset}"}
    more = {**parameters["additional_parameters"], "array": array.tasks}
    if array.after:
        more["dependency"] = f"afterany:{array.after.partition(';')[0]}"
    setup = [line.replace('"$SLURM_JOB_ID"', '"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"')
             for line in parameters["setup"]]
    parameters |= {"additional_parameters": more, "setup": [*setup, *_run_lines(plan, array)]}
    folder = str(array.folder / "submitit").replace("%", "%%")  # for patterns of file names
    text = _make_sbatch_string(command=f'{python_words(plan)} -u -m submitit.core._submit "$RUN/submitit"',
                               folder=folder, map_count=1, **parameters)
    return Request(plan=replace(plan, run_dir=str(array.folder)), text=with_backslashes(text), parameters=parameters,
                   notes=bad.notes, sections=(("sbatch script", text),))


def _run_lines(plan: JobPlan, array: Array) -> list[str]:
    """The lines of the script that make the run's folder, or leave if there is nothing to do."""
    folder = shlex.quote(str(array.folder))
    return [f"NUMBER=$(({array.offset} + SLURM_ARRAY_TASK_ID))",
            f'RUN={folder}/{array.id}-$(printf %04d "$NUMBER")',
            f'code=0; {python_words(plan)} -m {TASK} {folder} "$NUMBER" || code=$?',
            f"if [ $code != 0 ]; then exit $((code == {NOTHING} ? 0 : code)); fi"]
