"""Characters in the paths of a run that its processes, submitit or SLURM would misread."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from drumbeat.configs.errors import Fault

SUBMITIT = re.compile(r"%[jtAa]")
"""What submitit replaces in the paths of its files, by the job's id for example."""
SRUN = re.compile(r"%\d*[nNu]")
"""What srun replaces in the paths of log files even if it is escaped: a node's name or number, or the user's name."""


def path_faults(run_dir: Path, folder: Path, *, on_slurm: bool) -> Iterator[Fault]:
    """The faults of a run's folder, and of the folder in which the command is typed."""
    for path, what, remedy in ((run_dir, "the run folder", "Choose another folder for runs: --runs DIR"),
                               (folder, "the current folder", "Type the command in another folder.")):
        if os.pathsep in str(path):
            yield Fault(what=f"the path of {what} contains a colon", where=str(path),
                        given="Python separates the folders of PYTHONPATH by colons", remedy=remedy)
        if on_slurm and "\\" in str(path):
            yield Fault(what=f"the path of {what} contains a backslash", where=str(path),
                        given="sbatch removes backslashes from the options in a script", remedy=remedy)
    for pattern, program in ((SUBMITIT, "submitit"), *([(SRUN, "srun")] if on_slurm else [])):
        if found := pattern.search(str(run_dir)):
            yield Fault(what=f"the path of the run folder contains {found[0]}", where=str(run_dir),
                        given=f"{program} reads {found[0]} in the paths of log files as something else",
                        remedy="Choose another folder for runs: --runs DIR")
