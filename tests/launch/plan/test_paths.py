"""Paths that would break a run are refused before it starts; the others work (tests/slurm/test_sites.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.records import BackendName
from drumbeat.configs.site import Site
from drumbeat.launch.plan.job import Machine, plan_job
from tests.launch.tiny_plan import config


def faults(tmp_path: Path, run_dir: str, backend: BackendName = "local", folder: str = "/home/me") -> list[str]:
    machine = Machine(cpus=2, nodes=1 if backend == "local" else None)
    try:
        plan_job(config(tmp_path, "launch.gpus=0"), run_dir=Path(run_dir), backend=backend, machine=machine,
                 site=Site(), folder=Path(folder))
    except LaunchError as error:
        return [f"{fault.what}: {fault.remedy}" for fault in error.faults]
    return []


@pytest.mark.parametrize("path", ["/runs/100% sure/x", "/my%20runs/x", "/a%%b/%x", "/it's/[x] y/ü"])
def test_paths_that_work_everywhere(tmp_path: Path, path: str) -> None:
    assert faults(tmp_path, path) == faults(tmp_path, path, "slurm") == faults(tmp_path, path, "here") == []


@pytest.mark.parametrize("path", ["/a%N/x", "/a%5n/x", "/%user/x"])
def test_paths_that_slurm_misreads(tmp_path: Path, path: str) -> None:
    assert faults(tmp_path, path) == []
    (fault,) = faults(tmp_path, path, "slurm")
    assert fault.startswith("the path of the run folder contains ") and fault.endswith("--runs DIR")


def test_sbatch_removes_backslashes(tmp_path: Path) -> None:
    assert faults(tmp_path, "/a\\b/x", folder="/c\\d") == []
    assert faults(tmp_path, "/a\\b/x", "here", folder="/c\\d") == [
        "the path of the run folder contains a backslash: Choose another folder for runs: --runs DIR",
        "the path of the current folder contains a backslash: Type the command in another folder."]


def test_paths_that_submitit_misreads(tmp_path: Path) -> None:
    assert faults(tmp_path, "/50%test/x") == [
        "the path of the run folder contains %t: Choose another folder for runs: --runs DIR"]


def test_colons_separate_the_folders_of_pythonpath(tmp_path: Path) -> None:
    assert faults(tmp_path, "/runs/12:30/x", folder="/home/a:b") == [
        "the path of the run folder contains a colon: Choose another folder for runs: --runs DIR",
        "the path of the current folder contains a colon: Type the command in another folder."]
