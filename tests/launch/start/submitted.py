"""A run that is submitted to a cluster with stand-ins for SLURM's programs."""

from __future__ import annotations

from pathlib import Path

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan

SUBMIT = ["run", "small.yaml", "--slurm", "--gpus", "2"]


def only_run(folder: Path) -> RunDir:
    (path,) = [path for path in folder.glob("runs/*/*") if not path.is_symlink()]
    return RunDir(path)


def refuse(folder: Path) -> None:
    (folder / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid account' >&2\nexit 1\n")


def imports_from(run: RunDir) -> tuple[str, str]:
    """Where the processes of a run find Drumbeat, and where its user's code."""
    environment = JobPlan.read(run.plan).environment
    return environment["PYTHONPATH"], environment["DRUMBEAT_USER_PATH"]


def marked(run: RunDir, name: str = "code") -> str:
    """What the marker beside the code says in the copy that a run has."""
    return (run.path / name / "lab" / "nets.py").read_text()
