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
        ("sbatch", 'echo "$2" >> calls; if [ -e takes ]; then echo "4711|PENDING|run|$2" >> queue; fi\n'
                   'if [ -s error ]; then cat error >&2; if [ -e once ]; then : > error; fi; exit 1; fi\n'
                   'if [ -e answer ]; then cat answer; else echo 4712; fi'),
        ("squeue", 'if [ -e away ]; then rm away; echo "connect failure" >&2; exit 1; fi; cat queue'),
        ("srun", "exit 1"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "queue").write_text("4710|RUNNING|other|/elsewhere/script.sh\n")
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


def test_another_job_of_the_run_is_not_the_one_that_was_rejected(cluster: Path) -> None:
    """The comment counts only if sbatch has accepted a job."""
    (cluster / "error").write_text(TIMED_OUT)
    (cluster / "queue").write_text("4709|PENDING|run|/before\n")
    with pytest.raises(LaunchError, match="SLURM's controller does not answer"):
        submit(cluster)


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


@pytest.mark.parametrize("answer", [
    "4712", "Welcome to the cluster\nyour last job 77 used 12 core hours\n4712", "Submitted batch job 4712",
])
def test_the_job_is_the_one_that_sbatch_answers(cluster: Path, answer: str) -> None:
    (cluster / "answer").write_text(answer)
    assert submit(cluster) == "4712"


def test_the_cluster_that_takes_the_job_is_part_of_its_id(cluster: Path) -> None:
    for answer in ("4712;gpu", "Submitted batch job 4712 on cluster gpu"):
        (cluster / "answer").write_text(answer)
        assert submit(cluster) == "4712;gpu"
    assert (RunDir(cluster / "run").submitit / "4712_submitted.pkl").exists(), "the job knows its number alone"


@pytest.mark.parametrize("answer", ["", "42\n4711", "accepted"])
def test_an_answer_without_one_id_is_not_trusted(cluster: Path, answer: str) -> None:
    """squeue knows the script."""
    (cluster / "answer").write_text(answer)
    (cluster / "takes").touch()
    assert submit(cluster) == "4711"


def test_a_copy_of_the_script_is_found_by_the_runs_id(cluster: Path) -> None:
    (cluster / "answer").write_text("thank you")
    (cluster / "queue").write_text("4709|COMPLETED|run|/copies/1\n4711|PENDING|run|/copies/2\n"
                                   "4712|PENDING|other|/copies/3\n")
    assert submit(cluster) == "4711"


def test_a_job_that_was_accepted_is_never_called_refused(cluster: Path) -> None:
    (cluster / "answer").write_text("thank you")
    with pytest.raises(LaunchError) as error:
        submit(cluster)
    assert str(error.value) == """\
error: sbatch accepted the job, but neither it nor squeue tells the job's id
  where  sbatch
  given  thank you
  fix    Cancel the job if it is in the queue: squeue --me, scancel JOB
         If sbatch is a wrapper of your site (`type sbatch` tells), ask for one
         that prints what sbatch prints."""
