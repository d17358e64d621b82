"""Starting a run, with the preflight check and SLURM replaced: what is written and printed, and what is left if it
fails."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.load import load, read
from drumbeat.configs.run.files import write_json
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Job, Status
from drumbeat.launch.commands.main import main
from tests.launch.start.submitted import SUBMIT, only_run, refuse
from tests.runs import write_state


def test_submitting_prints_the_job_and_what_to_type_next(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SUBMIT, "seed=5"]) == 0
    run = only_run(cluster)
    lines = capsys.readouterr().out.splitlines()
    assert re.match(rf"code       {ROOT.name}( at |, )", lines.pop(4))
    assert lines[:6] == [
        "samples    1,000 train, 20 test",
        "steps      167 in head, 300 in finetune  (12,345 parameters)",
        f"run        small/{run.id}: 2 ranks with one GPU each, through SLURM",
        f"folder     runs/small/{run.id}",
        "SLURM job  4711",
        "",
    ]
    assert [line.partition("drumbeat ")[2] for line in lines[6:]] == [
        f"status {run.id}", f"logs -f {run.id}", f"stop {run.id}"]


def test_a_new_target_says_what_it_leaves_out_at_once(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ahead of the checks and in a dry run: otherwise SGD would train at torch's default learning rate unnoticed."""
    changed = "phases.head.optimizer._target_=torch.optim.SGD"
    assert main([*SUBMIT, changed]) == 0
    assert " ".join(capsys.readouterr().out.split()).startswith(
        "note phases.head.optimizer is now torch.optim.SGD: lr=0.01 from small.yaml was left out; set it again if it "
        "is meant ")
    assert main([*SUBMIT, changed, "--dry-run"]) == 0
    assert "# phases.head.optimizer is now torch.optim.SGD: lr=0.01 from small.yaml" in capsys.readouterr().out
    assert main([*SUBMIT, changed, "phases.head.optimizer.lr=0.1", "--dry-run"]) == 0
    assert "left out" not in capsys.readouterr().out


def test_the_folder_contains_everything_that_workers_and_commands_need(cluster: Path) -> None:
    assert main([*SUBMIT, "seed=5"]) == 0
    run = only_run(cluster)
    assert read(run.config) == load("small.yaml", ["seed=5"], {"launch.gpus": 2}).config
    assert "seed: 5                                   # command line\n" in run.config.read_text()
    assert JobPlan.require(run.plan).folder == str(cluster)
    job = Job.require(run.job)
    assert (job.backend, job.id) == ("slurm", "4711")
    assert Status.require(run.status).state == "pending"
    assert (cluster / "runs" / "small" / "latest").readlink() == Path(run.id)
    assert run.newest_attempt() is None


def test_where_sbatch_refuses_nothing_is_left(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse(cluster)
    assert main(SUBMIT) == 2
    assert "SLURM would reject this job" in capsys.readouterr().err
    assert not (cluster / "runs").exists()
    assert main([*SUBMIT, "--no-preflight"]) == 2
    assert "  given  invalid account\n" in capsys.readouterr().err
    assert not (cluster / "runs").exists()


def test_where_sbatch_refuses_other_runs_stay(cluster: Path) -> None:
    assert main(SUBMIT) == 0
    run = only_run(cluster)
    refuse(cluster)
    assert main(SUBMIT) == 2
    assert only_run(cluster) == run


def test_where_preparing_finds_faults_nothing_is_written(cluster: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    def preflight(config: Any, plan: Any) -> Any:
        raise PreflightError(Fault(what="the folder is not there", where="data.train"))

    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", preflight)
    assert main(SUBMIT) == 2
    assert capsys.readouterr().err == "error: the folder is not there\n  where  small.yaml:5 (data.train)\n"
    assert not (cluster / "runs").exists()


def test_ctrl_c_while_preparing_leaves_nothing(cluster: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    def preflight(config: Any, plan: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", preflight)
    assert main(SUBMIT) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert not (cluster / "runs").exists()


def test_a_place_that_cannot_be_written_to(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SUBMIT, "--runs", "/proc/runs"]) == 2
    assert capsys.readouterr().err == (
        "error: the run folder cannot be written: No such file or directory\n"
        "  where  /proc/runs\n"
        "  fix    Choose another folder: --runs DIR\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cluster / "closed").mkdir(mode=0o555)
    assert main([*SUBMIT, "--runs", "closed"]) == 2
    assert "the run folder cannot be created: permission denied" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(cluster.rglob("*"))
    assert main([*SUBMIT, "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("\n# Dry run: nothing was started or written.\n")
    assert sorted(cluster.rglob("*")) == before


def test_where_resuming_is_refused_the_run_is_as_before(cluster: Path) -> None:
    assert main(SUBMIT) == 0
    run = only_run(cluster)
    write_state(run, "stopped", "stopped at step 7")
    before = {path: path.read_text() for path in (run.plan, run.status, run.job, run.config)}
    refuse(cluster)
    assert main(["run", "--resume", "small", "--gpus", "4"]) == 2
    assert {path: path.read_text() for path in before} == before


def test_faults_of_preparing_name_the_files_that_were_copied(lab: Path, monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    def preflight(config: Any, plan: JobPlan) -> Any:
        raise PreflightError(Fault(what=f"no Net in {plan.environment['DRUMBEAT_USER_PATH']}/nets.py"))

    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", preflight)
    assert main(SUBMIT) == 2
    assert capsys.readouterr().err.replace("\n       ", " ") == f"error: no Net in {lab}/nets.py\n"
    assert not (lab / "runs").exists()


def test_a_plan_of_a_later_version_is_read(cluster: Path) -> None:
    """As the launcher of today writes it for the node launcher in an older snapshot."""
    assert main(SUBMIT) == 0
    run = only_run(cluster)
    before = JobPlan.require(run.plan)
    values = before.as_json()
    values["site"]["later"] = values["topology"]["later"] = values["later"] = 1
    write_json(run.plan, values)
    assert JobPlan.require(run.plan) == before
