"""The sbatch script is text that can be compared whole, and what is submitted is that text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.site import Site
from drumbeat.launch.backends.slurm import Slurm, check_slurm_installed
from tests.launch.tiny_plan import plan

GOLDEN = Path(__file__).parent / "golden"

SITE = Site(partition="big", account="physics", qos="high", constraint="a100&nvlink", time_minutes=90,
            mem_gb_per_node=1.5, signal_seconds=60, setup=["module load cuda", "ulimit -l unlimited"],
            sbatch={"mail-type": "FAIL", "exclusive": True})

CASES = {
    "cpu": (["launch.gpus=0", "launch.procs=2"], Site()),
    "gpu_gres": (["launch.gpus=4"], Site()),
    "gpu_typed": (["launch.gpus=4"], Site(gpu_type="a100")),
    "gpus_per_node": (["launch.gpus=4"], Site(gpu_flag="gpus-per-node", gpu_type="a100")),
    "container": (["launch.gpus=4"], Site(gpu_flag="none", mem_gb_per_gpu=30, prefix="apptainer exec /images/a.sif",
                                          environment={"NCCL_DEBUG": "WARN", "GREETING": "good day"},
                                          sbatch={"mail-user": "me@example.org", "requeue": False})),
    "memory_of_cores": (["launch.gpus=0", "launch.procs=2"], Site(mem_gb_per_cpu=2.5)),
    "two_nodes": (["launch.gpus=4", "launch.nodes=2", "launch.cpus_per_rank=6"], SITE),
    "one_to_two_nodes": (["launch.gpus=4", "launch.nodes=2", "launch.min_nodes=1"], Site()),
    "two_nodes_not_requeued": (["launch.gpus=4", "launch.nodes=2", "launch.min_nodes=1"], Site(
        sbatch={"requeue": False})),
}


def sbatch_text(folder: Path, name: str) -> str:
    """The script of a case, with the parts that differ between machines replaced."""
    assignments, site = CASES[name]
    text = Slurm().request(plan(folder, *assignments, backend="slurm", site=site)).text
    return text.replace(sys.executable, "/venv/bin/python").replace(str(ROOT), "/drumbeat")


@pytest.mark.parametrize("name", CASES)
def test_sbatch_script(tmp_path: Path, name: str) -> None:
    """Regenerate the files, and look at the difference, with

        DRUMBEAT_GOLDEN=write python -m pytest tests/launch/backends/test_slurm.py; git diff tests
    """
    file, text = GOLDEN / f"{name}.sbatch", sbatch_text(tmp_path, name)
    if os.environ.get("DRUMBEAT_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("name", CASES)
def test_sbatch_script_is_valid_shell(tmp_path: Path, name: str) -> None:
    done = subprocess.run(["bash", "-n"], input=sbatch_text(tmp_path, name), text=True, capture_output=True,
                          check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_folders_with_blanks_are_quoted(tmp_path: Path) -> None:
    planned = plan(tmp_path, "launch.gpus=4", backend="slurm")
    planned = JobPlan(**vars(planned) | {"run_dir": "/my runs/RUN", "python": "/my venv/python",
                                         "environment": {"PYTHONPATH": "/my code:/here", "PYTHONSAFEPATH": "1"}})
    text = Slurm().request(planned).text
    assert "export PYTHONPATH='/my code:/here'" in text
    assert "'/my venv/python' -u -m submitit.core._submit '/my runs/RUN/submitit'" in text


def fake_slurm(folder: Path, script: str) -> str:
    """A PATH with an sbatch that runs `script`, an srun, and an sinfo of two partitions."""
    for name, text in (("sbatch", script), ("srun", "exit 1"), ("sinfo", "echo long short")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_what_is_submitted_is_the_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", fake_slurm(tmp_path, f'cp "$2" {tmp_path}/submitted; echo "Submitted batch job 4711"'))
    planned = plan(tmp_path, "launch.gpus=4", "launch.nodes=2", backend="slurm", site=SITE)
    planned = JobPlan(**vars(planned) | {"run_dir": str(tmp_path / "run")})
    request = Slurm().request(planned)
    assert Slurm().submit(request).id == "4711"
    assert (tmp_path / "submitted").read_text() == request.text
    assert (RunDir(tmp_path / "run").submitit / "4711_submitted.pkl").exists()


def test_the_gpus_of_the_submitting_shell_do_not_reach_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the profile do."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    script = f'echo "${{CUDA_VISIBLE_DEVICES-unset}}" > {tmp_path}/inherited; echo "Submitted batch job 4711"'
    monkeypatch.setenv("PATH", fake_slurm(tmp_path, script))
    for variables, exported in (({}, False), ({"CUDA_VISIBLE_DEVICES": "0,1"}, True)):
        planned = plan(tmp_path, "launch.gpus=2", backend="slurm", site=Site(gpu_flag="none", environment=variables))
        request = Slurm().request(JobPlan(**vars(planned) | {"run_dir": str(tmp_path / "run")}))
        Slurm().submit(request)
        assert (tmp_path / "inherited").read_text() == "unset\n"
        assert ("export CUDA_VISIBLE_DEVICES=0,1\n" in request.text) == exported
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_sbatchs_error_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", fake_slurm(
        tmp_path, 'echo "sbatch: error: invalid partition specified: big" >&2; exit 1'))
    planned = JobPlan(**vars(plan(tmp_path, "launch.gpus=4", backend="slurm")) | {"run_dir": str(tmp_path / "run")})
    with pytest.raises(LaunchError) as error:
        Slurm().submit(Slurm().request(planned))
    assert str(error.value) == (
        "error: sbatch refused the job\n"
        "  where  sbatch\n"
        "  given  invalid partition specified: big\n"
        "  fix    sinfo lists the partitions: long, short.")
    assert capfd.readouterr().err == ""


def test_a_machine_without_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LaunchError, match="SLURM is not installed here"):
        check_slurm_installed()


def test_what_sbatch_reads_from_the_shell_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "5")
    planned = plan(tmp_path, "launch.gpus=4", backend="slurm")
    assert Slurm().notes(Slurm().request(planned)) == ["sbatch also reads SBATCH_ACCOUNT=lab from this shell"]
    monkeypatch.delenv("SBATCH_ACCOUNT")
    assert Slurm().notes(Slurm().request(planned)) == []


def test_other_gres_are_requested_beside_the_gpus(tmp_path: Path) -> None:
    site = Site(sbatch={"gres": "lscratch:100", "mem": "0", "ntasks_per_core": False, "wckey": "mine"})
    text = Slurm().request(plan(tmp_path, "launch.gpus=4", backend="slurm", site=site)).text
    for line in ("--gres=gpu:4,lscratch:100", "--mem=0", "--wckey=mine"):
        assert f"#SBATCH {line}\n" in text


def test_backslashes_are_doubled_in_options_alone(tmp_path: Path) -> None:
    """tests/slurm/test_sites.py submits them."""
    site = Site(sbatch={"mail-user": r"a\b"}, setup=[r"echo a\b"])
    text = Slurm().request(plan(tmp_path, "launch.gpus=0", backend="slurm", site=site)).text
    assert "#SBATCH --mail-user='a\\\\b'\n" in text
    assert "\necho a\\b\n" in text
