"""What a task of a job array does before its launchers start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.load import read
from drumbeat.configs.run.records import Job, Status
from drumbeat.configs.run.sweep import SweepDir
from drumbeat.configs.run.view import View
from drumbeat.launch.sweeps.task import main, prepare
from tests.launch.sweeps.made import made_sweep, write_trial


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepDir:
    """A sweep in array 12 of cluster gpu, and this process in the array's last task, which has the array's number."""
    for name, value in (("JOB_ID", "12"), ("ARRAY_JOB_ID", "12"), ("ARRAY_TASK_ID", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", str(tmp_path))
    return made_sweep(tmp_path / "runs", {"phases.head.optimizer.lr": "1e-3,3e-4"}, backend="slurm", jobs=("12;gpu",))


def test_the_run_of_a_trial(folder: SweepDir) -> None:
    assert prepare(folder, 1) == 0
    run = folder.run(folder.read(), 1)
    view = View.read(run)
    assert (view.state, view.job and view.job.id, view.plan.run_dir) == ("pending", "12_1;gpu", str(run.path))
    phase = read(run.config).phases["head"]
    assert phase and phase.optimizer["lr"] == 3e-4
    assert (run.submitit / "12_1_submitted.pkl").exists()


def test_queued_again_by_slurm(folder: SweepDir) -> None:
    """The run keeps what it has recorded."""
    prepare(folder, 1)
    run = folder.run(folder.read(), 1)
    run.write_status("preempted", attempt=-1)
    before = Job.require(run.job)
    assert prepare(folder, 1) == 0
    assert (Job.require(run.job), Status.require(run.status).state) == (before, "preempted")


def test_a_run_that_has_ended_is_resumed(folder: SweepDir) -> None:
    run = write_trial(folder, 1, "stopped", backend="slurm", job="11_1;gpu")
    assert prepare(folder, 1) == 0
    assert (Job.require(run.job).id, Status.require(run.status).state) == ("12_1;gpu", "pending")


def test_nothing_to_do(folder: SweepDir) -> None:
    run = write_trial(folder, 1, "finished", backend="slurm", job="11_1;gpu")
    assert main(str(folder.path), "1") == 3
    assert Job.require(run.job).id == "11_1;gpu"
    write_trial(folder, 1, "running", backend="slurm", job="40;gpu")
    assert main(str(folder.path), "1") == 3, "another job runs it"
    replace(folder.read(), halted=True).write(folder.record)
    assert main(str(folder.path), "0") == 3
    assert not folder.run(folder.read(), 0).path.exists()


def test_an_error_is_one_screen_in_the_log(folder: SweepDir, capsys: pytest.CaptureFixture[str]) -> None:
    folder.config.write_text("batch_size: many")
    assert main(str(folder.path), "1") == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert folder.read().refused["1"].startswith("error: ")
