"""A job array's script: that of a single run, with the run's folder in a variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.launch.backends.array import Array, array_request
from tests.launch.tiny_plan import plan

GOLDEN = Path(__file__).parent / "golden" / "array.sbatch"
FOLDER = Path("/my runs/s")


def text_of(folder: Path) -> str:
    array = Array(folder=FOLDER, id="20260102-030405-abcde", numbers=range(1000, 1008), offset=1000, at_once=4,
                  after="12;gpu")
    request = array_request(plan(folder, "launch.gpus=0", "launch.procs=2", backend="slurm"), array)
    assert request.plan.run_dir == str(FOLDER)
    return request.text.replace(sys.executable, "/venv/bin/python").replace(str(ROOT), "/drumbeat")


def test_its_script(tmp_path: Path) -> None:
    """Regenerate the file, and look at the difference, with

        DRUMBEAT_GOLDEN=write python -m pytest tests/launch/backends/test_array.py; git diff tests
    """
    text = text_of(tmp_path)
    if os.environ.get("DRUMBEAT_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    assert "$SLURM_JOB_ID" not in text, "it is that of the whole array in its last task"


@pytest.mark.parametrize(("code", "exit_code", "launched"), [(0, 0, True), (3, 0, False), (2, 2, False)])
def test_a_task_finds_its_run(tmp_path: Path, code: int, exit_code: int, launched: bool) -> None:
    """Its run is made first; with nothing to do, and after an error, no launcher starts."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\nexit {code}\n')
    (tmp_path / "srun").write_text(f'#!/bin/sh\nfor word; do :; done\necho "srun $word" >> {tmp_path}/asked\n')
    for program in (python, tmp_path / "srun"):
        program.chmod(0o755)
    script = text_of(tmp_path).replace("/venv/bin/python", str(python))
    done = subprocess.run(["bash", "-eu"], input=script, text=True, check=False, env={
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "7"})
    assert done.returncode == exit_code
    run = f"{FOLDER}/20260102-030405-abcde-1007"
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"-m drumbeat.launch.sweeps.task {FOLDER} 1007", *([f"srun {run}/submitit"] if launched else [])]


@pytest.mark.parametrize(("numbers", "tasks"), [([3], "3"), ([0, 1, 2], "0-2"), ([0, 2, 3, 7, 8, 9], "0,2-3,7-9")])
def test_its_tasks(numbers: list[int], tasks: str) -> None:
    assert Array(folder=FOLDER, id="x", numbers=numbers).tasks == tasks
    assert Array(folder=FOLDER, id="x", numbers=numbers, at_once=2).tasks == f"{tasks}%2"
