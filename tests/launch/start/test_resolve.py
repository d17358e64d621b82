"""From the arguments of `run`, `resume` and `rerun` to a config and a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.load import read
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Job, Status
from drumbeat.launch.commands.main import main
from tests.launch.start.submitted import SUBMIT, imports_from, marked, only_run, refuse
from tests.runs import write_state


def test_resume_uses_the_same_folder_and_backend(cluster: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*SUBMIT, "--profile", "example"]) == 0
    run = only_run(cluster)
    config = run.config.read_text()
    write_state(run, "stopped")
    run.job.unlink()
    monkeypatch.chdir("/")
    assert main(["run", "--resume", str(run.path)]) == 0
    plan = JobPlan.require(run.plan)
    assert (plan.backend, plan.folder, plan.site.partition) == ("slurm", str(cluster), "gpu")
    assert (plan.topology.ranks_per_node, plan.topology.device) == (2, "cuda")
    assert run.config.read_text() == config
    job = Job.require(run.job)
    assert (job.backend, job.id) == ("slurm", "4711")
    assert Status.require(run.status).state == "pending"


def test_resuming_with_other_processes(cluster: Path) -> None:
    assert main(SUBMIT) == 0
    run = only_run(cluster)
    write_state(run, "failed")
    assert main(["run", "--resume", "small", "--gpus", "4", "--nodes", "2"]) == 0
    topology = JobPlan.require(run.plan).topology
    assert (topology.nodes, topology.ranks_per_node) == (2, 4)
    write_state(run, "failed")
    assert main(["run", "--resume", "small", "--procs", "3", "--nodes", "1"]) == 0
    topology = JobPlan.require(run.plan).topology
    assert (topology.nodes, topology.ranks_per_node, topology.device) == (1, 3, "cpu")


def test_a_run_tells_that_it_is_one_of_a_sweep(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cluster / "small.yaml").write_text((cluster / "small.yaml").read_text() + "sweep: {seed: 0..2}\n")
    assert main([*SUBMIT, "--dry-run"]) == 0
    assert "sweep: section: drumbeat sweep small.yaml." in " ".join(capsys.readouterr().out.replace("#", "").split())


def test_a_range_of_nodes(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As sbatch writes it; a resume keeps the least number."""
    assert main([*SUBMIT, "--nodes", "2-3"]) == 0
    run = only_run(cluster)
    topology = JobPlan.require(run.plan).topology
    assert (topology.nodes, topology.min_nodes) == (3, 2)
    write_state(run, "failed")
    assert main(["run", "--resume", "small", "--nodes", "4"]) == 0
    topology = JobPlan.require(run.plan).topology
    assert (topology.nodes, topology.min_nodes) == (4, 2)
    capsys.readouterr()
    for wrong in ("3-2", "-1", "two", "2-", "0-1"):
        assert main([*SUBMIT, f"--nodes={wrong}"]) == 2
    assert "'3-2' is neither a number of nodes nor a range of it, such as 1-4" in " ".join(
        capsys.readouterr().err.split())


def test_a_dry_run_may_use_more_gpus_than_there_are(cluster: Path,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "small.yaml", "--gpus", "8", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "--nproc-per-node=8" in output
    assert "# This machine has fewer GPUs: the run would not start here.\n" in output
    assert main(["run", "small.yaml", "--gpus", "8"]) == 2


def test_resuming_keeps_the_threads_of_each_rank(cluster: Path) -> None:
    """However many cores this machine has now: the order of summation depends on them."""
    assert main([*SUBMIT, "launch.cpus_per_rank=5"]) == 0
    run = only_run(cluster)
    assert JobPlan.require(run.plan).environment["OMP_NUM_THREADS"] == "5"
    write_state(run, "failed")
    assert main(["run", "--resume", "small"]) == 0
    assert JobPlan.require(run.plan).environment["OMP_NUM_THREADS"] == "5"


def test_resuming_with_what_cannot_change_the_results(cluster: Path) -> None:
    assert main([*SUBMIT, "seed=3"]) == 0
    run = only_run(cluster)
    write_state(run, "failed")
    assert main(["run", "--resume", "small", "data.workers=2", "checkpoints.keep=9"]) == 0
    config = read(run.config)
    assert (config.seed, config.data.workers, config.checkpoints.keep) == (3, 2, 9)


@pytest.mark.parametrize(("words", "said"), [
    (["seed=3", "data.workers=2"], "error: seed cannot change on resume: the order of the samples"),
    (["--procs", "0"], "error: launch.procs must be at least 1\n  where  --procs\n"),
    (["--gpus", "-1"], "error: launch.gpus must be at least 0\n  where  --gpus\n"),
])
def test_resuming_is_as_strict_as_starting(cluster: Path, capsys: pytest.CaptureFixture[str], words: list[str],
                                           said: str) -> None:
    assert main(SUBMIT) == 0
    write_state(only_run(cluster), "failed")
    assert main(["run", "--resume", "small", *words]) == 2
    assert capsys.readouterr().err.startswith(said)


def test_a_run_that_waits_or_works_is_not_started_twice(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SUBMIT) == 0
    run = only_run(cluster)
    (cluster / "bin" / "squeue").write_text("#!/bin/sh\necho PENDING\n")
    capsys.readouterr()
    assert main(["run", "--resume", "small"]) == 2
    screen = capsys.readouterr().err
    assert screen.startswith(f"error: run {run.id} is still running\n  where  {run.path}\n"
                             "  given  SLURM job 4711 is pending\n  fix    Wait until it ends, or stop it: ")


def test_a_run_keeps_its_code_and_can_be_given_newer(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SUBMIT) == 0
    run = only_run(lab)
    (lab / "nets.py").write_text("two")
    write_state(run, "failed")
    assert main(["resume", "small"]) == 0
    assert imports_from(run) == (f"{run.path}/code/{ROOT.name}/src", f"{run.path}/code/lab")
    assert marked(run) == "one"

    write_state(run, "failed")
    refuse(lab.parent)
    assert main(["resume", "small", "--new-code"]) == 2
    assert sorted(path.name for path in run.path.glob("code*")) == ["code"]
    (lab.parent / "bin" / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 4712\n")
    assert main(["resume", "small", "--new-code"]) == 0
    assert imports_from(run) == (f"{run.path}/code-2/{ROOT.name}/src", f"{run.path}/code-2/lab")
    assert (marked(run), marked(run, "code-2")) == ("one", "two")


def test_a_run_is_started_again_with_its_code_and_config(lab: Path) -> None:
    assert main([*SUBMIT, "seed=5", "--profile", "example"]) == 0
    first = only_run(lab)
    (lab / "nets.py").write_text("two")
    (lab / "small.yaml").write_text("edited")
    assert main(["rerun", first.id, "batch_size=16", "--nodes", "2"]) == 0
    second = RunDir((lab / "runs" / "small" / "latest").resolve())
    assert second != first
    config, plan = read(second.config), JobPlan.require(second.plan)
    assert (config.seed, config.batch_size, marked(second)) == (5, 16, "one")
    assert (plan.backend, plan.site.partition) == ("slurm", "gpu")
    assert (plan.topology.nodes, plan.topology.ranks_per_node) == (2, 2)
    assert imports_from(second) == (f"{second.path}/code/{ROOT.name}/src", f"{second.path}/code/lab")
    assert main(["rerun", second.id, "--new-code", "--name", "other"]) == 0
    assert marked(RunDir((lab / "runs" / "other" / "latest").resolve())) == "two"


def test_without_a_snapshot_the_code_runs_where_it_is(lab: Path) -> None:
    assert main([*SUBMIT, "--no-snapshot"]) == 0
    run = only_run(lab)
    assert not list(run.path.glob("code*"))
    assert imports_from(run) == (f"{ROOT}/src", str(lab))
    write_state(run, "failed")
    assert main(["resume", "small"]) == 0
    assert not list(run.path.glob("code*"))


def test_resuming_needs_the_variables_of_the_start(cluster: Path, capsys: pytest.CaptureFixture[str],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Their values are in no file; those of secrets may change."""
    monkeypatch.setenv("MODE", "fast")
    monkeypatch.setenv("HF_TOKEN", "abc")
    assert main([*SUBMIT, "model.mode=${oc.env:MODE}", "model.token=${oc.env:HF_TOKEN}"]) == 0
    run = only_run(cluster)
    write_state(run, "failed")
    assert read(run.config).model["token"] == "${oc.env:HF_TOKEN}"
    assert JobPlan.require(run.plan).variables == ("MODE", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "def")
    monkeypatch.setenv("MODE", "slow")
    assert main(["resume", "small"]) == 2
    assert "error: model.mode has another value than when the run was started" in capsys.readouterr().err
    monkeypatch.delenv("MODE")
    assert main(["resume", "small"]) == 2
    assert "Environment variable 'MODE' not found" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("MODE", "fast")
    assert main(["resume", "small"]) == 0
    assert "mode: \"${oc.env:MODE}\"" in run.config.read_text()


def test_a_job_that_would_not_inherit_a_variable(cluster: Path, capsys: pytest.CaptureFixture[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "abc")
    (cluster / "mine.yaml").write_text("sbatch: {export: NONE}\n")
    assert main([*SUBMIT, "--profile", "mine.yaml", "model.token=${oc.env:HF_TOKEN}"]) == 2
    assert "error: the job would not inherit HF_TOKEN, to which the config refers" in capsys.readouterr().err
    assert main([*SUBMIT, "--profile", "mine.yaml", "model.token=${oc.env:HF_TOKEN}", "--dry-run"]) == 0
    assert "the job would not inherit HF_TOKEN, to which the config refers (export: NONE)" in (
        " ".join(capsys.readouterr().out.split()))
    assert not (cluster / "runs").exists()
