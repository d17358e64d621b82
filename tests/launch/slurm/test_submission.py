"""A job is submitted exactly once, also if sbatch reports an error. The texts are SLURM 22.05's; tests/slurm tests on a
real cluster."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.backends.slurm import Slurm
from drumbeat.launch.slurm import submission
from tests.launch.tiny_plan import plan

TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
AWAY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an sbatch that takes the job's script, and fails with the text in `error` if there is any, and
    of an squeue that lists the scripts in `queue`."""
    for name, text in (
        ("sbatch", 'echo "$1" >> calls; if [ -e takes ]; then echo "4711|$1" >> queue; fi\n'
                   'if [ -s error ]; then cat error >&2; if [ -e once ]; then : > error; fi; exit 1; fi\n'
                   'echo "Submitted batch job 4712"'),
        ("squeue", 'if [ -e away ]; then rm away; echo "connect failure" >&2; exit 1; fi; cat queue'),
        ("srun", "exit 1"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "queue").write_text("4710|/elsewhere/script.sh\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(submission, "SETTLE_SECONDS", 0.5)
    return tmp_path


def submit(folder: Path) -> str | None:
    planned = plan(folder, "launch.gpus=4", backend="slurm")
    request = Slurm().request(JobPlan(**vars(planned) | {"run_dir": str(folder / "run")}))
    return Slurm().submit(request).id


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


def test_a_job_that_was_taken_without_an_answer_is_found(cluster: Path) -> None:
    (cluster / "error").write_text(TIMED_OUT)
    (cluster / "takes").touch()
    (cluster / "away").touch()
    assert submit(cluster) == "4711"
    folder = RunDir(cluster / "run").submitit
    assert (folder / "4711_submitted.pkl").exists() and (folder / "4711_submission.sh").exists()
    assert calls(cluster) == 1


def test_a_job_that_may_have_been_taken_is_not_submitted_again(cluster: Path) -> None:
    (cluster / "error").write_text(TIMED_OUT)
    with pytest.raises(LaunchError, match="SLURM's controller does not answer"):
        submit(cluster)
    assert calls(cluster) == 1


def test_submission_waits_for_an_unreachable_controller(cluster: Path) -> None:
    (cluster / "error").write_text(AWAY)
    (cluster / "once").touch()
    (cluster / "away").touch()
    assert submit(cluster) == "4712"
    assert calls(cluster) == 2


def test_a_controller_that_stays_away(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "TIMEOUT", 0.3)
    (cluster / "error").write_text(AWAY)
    with pytest.raises(LaunchError, match="connect failure"):
        submit(cluster)
