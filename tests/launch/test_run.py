"""The `run` command from argv to the run's folder, with sbatch and the preflight check replaced."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.load import load, read
from drumbeat.configs.run.files import write_json
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Job, Status
from drumbeat.launch.commands.main import main
from tests.launch.tiny_plan import FACTS, write_config
from tests.runs import write_state

SUBMIT = ["run", "small.yaml", "--slurm", "--gpus", "2"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config; sbatch takes every job and squeue knows none; the preflight check finds no fault."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    for name, script in (("sbatch", "echo Submitted batch job 4711"), ("srun", ""), ("squeue", ""),
                         ("sinfo", "hostname")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", lambda config, plan: FACTS)
    write_config(tmp_path)
    return tmp_path


def only_run(folder: Path) -> RunDir:
    (path,) = [path for path in folder.glob("runs/*/*") if not path.is_symlink()]
    return RunDir(path)


def refuse(folder: Path) -> None:
    (folder / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid account' >&2\nexit 1\n")


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
    """In the run's header and in a dry run: otherwise SGD would train at torch's default learning rate unnoticed."""
    changed = "phases.head.optimizer._target_=torch.optim.SGD"
    assert main([*SUBMIT, changed]) == 0
    assert ("note phases.head.optimizer is now torch.optim.SGD: lr=0.01 from small.yaml was left out; set it again if "
            "it is meant SLURM job") in " ".join(capsys.readouterr().out.split())
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


def test_a_job_that_sbatch_rejects_leaves_no_folder(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse(cluster)
    assert main(SUBMIT) == 2
    assert "SLURM would reject this job" in capsys.readouterr().err
    assert not (cluster / "runs").exists()
    assert main([*SUBMIT, "--no-preflight"]) == 2
    assert "  given  invalid account\n" in capsys.readouterr().err
    assert not (cluster / "runs").exists()


def test_a_job_that_sbatch_rejects_leaves_other_runs_alone(cluster: Path) -> None:
    assert main(SUBMIT) == 0
    run = only_run(cluster)
    refuse(cluster)
    assert main(SUBMIT) == 2
    assert only_run(cluster) == run


def test_faults_in_the_preflight_check_leave_no_folder(cluster: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    def preflight(config: Any, plan: Any) -> Any:
        raise PreflightError(Fault(what="the folder is not there", where="data.train"))

    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", preflight)
    assert main(SUBMIT) == 2
    assert capsys.readouterr().err == "error: the folder is not there\n  where  small.yaml:5 (data.train)\n"
    assert not (cluster / "runs").exists()


def test_ctrl_c_during_the_preflight_check_leaves_no_folder(cluster: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    def preflight(config: Any, plan: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", preflight)
    assert main(SUBMIT) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert not (cluster / "runs").exists()


def test_a_runs_folder_that_cannot_be_written(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_dry_run_may_use_more_gpus_than_there_are(cluster: Path,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "small.yaml", "--gpus", "8", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "--nproc-per-node=8" in output
    assert "# This machine has fewer GPUs: the run would not start here.\n" in output
    assert main(["run", "small.yaml", "--gpus", "8"]) == 2


def test_resuming_keeps_the_threads_of_each_rank(cluster: Path) -> None:
    """On a machine with any number of cores: the order of summation depends on the threads."""
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


@pytest.mark.parametrize(("changes", "message"), [
    (["seed=3", "data.workers=2"], "error: seed cannot change on resume\n  where  command line\n"),
    (["--procs", "0"], "error: launch.procs must be at least 1\n  where  --procs\n"),
    (["--gpus", "-1"], "error: launch.gpus must be at least 0\n  where  --gpus\n"),
])
def test_resuming_is_as_strict_as_starting(cluster: Path, capsys: pytest.CaptureFixture[str], changes: list[str],
                                           message: str) -> None:
    assert main(SUBMIT) == 0
    write_state(only_run(cluster), "failed")
    assert main(["run", "--resume", "small", *changes]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_rejected_resume_leaves_the_run_unchanged(cluster: Path) -> None:
    assert main(SUBMIT) == 0
    run = only_run(cluster)
    write_state(run, "stopped", "stopped at step 7")
    before = {path: path.read_text() for path in (run.plan, run.status, run.job, run.config)}
    refuse(cluster)
    assert main(["run", "--resume", "small", "--gpus", "4"]) == 2
    assert {path: path.read_text() for path in before} == before


def test_a_pending_or_running_run_is_not_started_twice(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SUBMIT) == 0
    run = only_run(cluster)
    (cluster / "bin" / "squeue").write_text("#!/bin/sh\necho PENDING\n")
    capsys.readouterr()
    assert main(["run", "--resume", "small"]) == 2
    screen = capsys.readouterr().err
    assert screen.startswith(f"error: run {run.id} is still running\n  where  {run.path}\n"
                             "  given  SLURM job 4711 is pending\n  fix    Wait until it ends, or stop it: ")


NO_TORCH = "raise ImportError('something imported torch')\n"


def test_help_and_dry_run_need_neither_torch_nor_slurm(tmp_path: Path) -> None:
    for package in ("torch", "torchvision", "numpy"):
        (tmp_path / "stub" / package).mkdir(parents=True)
        (tmp_path / "stub" / package / "__init__.py").write_text(NO_TORCH)
    environment = {"PATH": "/nowhere", "PYTHONPATH": str(tmp_path / "stub"), "HOME": str(tmp_path)}
    for words in (["--help"], ["resnet50_xray_demo", "--procs", "2", "--dry-run"],
                  ["resnet50_xray", "--slurm", "--nodes", "2", "--gpus", "8", "--profile", "example", "--dry-run"]):
        done = subprocess.run([sys.executable, str(ROOT / "launch" / "run.py"), *words], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["stub"]


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "omegaconf.py").write_text("raise ModuleNotFoundError('not here', name='omegaconf')")
    done = subprocess.run([sys.executable, str(ROOT / "launch" / "run.py"), "resnet50_xray", "--dry-run"], cwd=tmp_path,
                          env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"error: omegaconf is not installed\n  where  {sys.executable}\n"
                           "  fix    Use .venv/bin/python, which `make demo` makes, or: pip install -e .\n")


def imports_from(run: RunDir) -> tuple[str, str]:
    """Where the processes of a run find Drumbeat and the user's code."""
    environment = JobPlan.read(run.plan).environment
    return environment["PYTHONPATH"], environment["DRUMBEAT_USER_PATH"]


def marked(run: RunDir, name: str = "code") -> str:
    """The text of the marker file beside the code in a run's copy."""
    return (run.path / name / "lab" / "nets.py").read_text()


@pytest.fixture
def lab(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `lab`, the working directory, with the module of the config's model."""
    monkeypatch.delenv("PYTHONPATH")
    (cluster / "lab").mkdir()
    (cluster / "small.yaml").rename(cluster / "lab" / "small.yaml")
    (cluster / "lab" / "nets.py").write_text("one")
    monkeypatch.chdir(cluster / "lab")
    return cluster / "lab"


def test_a_run_keeps_its_code_unless_new_code_is_requested(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_run_is_rerun_with_its_code_and_config(lab: Path) -> None:
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


def test_preflight_faults_name_the_copied_files(lab: Path, monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    def preflight(config: Any, plan: JobPlan) -> Any:
        raise PreflightError(Fault(what=f"no Net in {plan.environment['DRUMBEAT_USER_PATH']}/nets.py"))

    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", preflight)
    assert main(SUBMIT) == 2
    assert capsys.readouterr().err.replace("\n       ", " ") == f"error: no Net in {lab}/nets.py\n"
    assert not (lab / "runs").exists()


def test_a_plan_of_a_later_version_is_read(cluster: Path) -> None:
    """A newer launcher may write the plan for the node launcher in an older snapshot."""
    assert main(SUBMIT) == 0
    run = only_run(cluster)
    before = JobPlan.require(run.plan)
    values = before.as_json()
    values["site"]["later"] = values["topology"]["later"] = values["later"] = 1
    write_json(run.plan, values)
    assert JobPlan.require(run.plan) == before
