"""The versions, device and precision in a run's folder, and what a resumed run says about their changes."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from drumbeat.configs.run.checkpoint_records import CheckpointState
from drumbeat.configs.run.versions import AttemptVersions, Versions
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.status import status_text
from drumbeat.trainers import stopping, versions
from drumbeat.trainers.gpu_check import Device
from drumbeat.trainers.versions import cpu_name, preflight_versions, rank_versions
from tests.runs import write_plan
from tests.trainers.in_process import new_run, train

CPU = torch.device("cpu")
H100, T4 = Device(name="NVIDIA H100", capability=(9, 0)), Device(name="Tesla T4", capability=(7, 5))


def test_a_resumed_run_names_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    """In its log and in `status`; a run resumed with the same versions says nothing."""
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_CHECKS", 0.0)
    run = new_run(tmp_path / "tiny" / "run")
    write_plan(run)
    with monkeypatch.context() as old:
        old.setattr(torch, "__version__", "2.0.0")
        train(run, stop_after=3)
    state = CheckpointState.require(run.checkpoints / "last" / "state.json")
    assert state.versions is not None
    assert (state.versions.torch, state.versions.python, state.versions.nccl) == (
        "2.0.0", platform.python_version(), None)
    assert (state.versions.device, state.versions.precision) == (cpu_name(), "fp32")
    assert capsys.readouterr().out.count("at the checkpoint") == 0

    train(run, stop_after=6)
    change = f"torch 2.0.0 at the checkpoint, {torch.__version__} now: the result may differ in its last digits"
    assert f"note: {change}" in " ".join(capsys.readouterr().out.split())
    found = AttemptVersions.require(run.attempt(1).versions)
    assert (found.versions.torch, found.changes) == (torch.__version__, (change,))
    status = " ".join(status_text(View.read(run)).split())
    assert f"versions torch {torch.__version__}, torchvision" in status
    assert f"device {cpu_name()}, fp32 changed {change}" in status

    train(run)
    assert "at the checkpoint" not in capsys.readouterr().out
    assert AttemptVersions.require(run.attempt(2).versions).changes == ()
    assert "changed" not in status_text(View.read(run))


def test_status_has_the_versions_of_the_preflight_check_until_the_run_has_started(tmp_path: Path) -> None:
    run = new_run(tmp_path / "tiny" / "run")
    write_plan(run, versions=Versions(torch="2.14.1", python="3.11.2", cuda="13.0", nccl=""))
    status = status_text(View.read(run))
    assert "versions        torch 2.14.1, CUDA 13.0, Python 3.11.2\ndevice          not known yet\n" in status


@pytest.mark.parametrize(("precision", "bf16", "actual"), [
    ("auto", True, "bf16"), ("auto", False, "fp32"), ("bf16", False, "bf16"), ("fp32", True, "fp32"),
    ("tf32", True, "fp32")])
def test_the_precision_on_a_cpu(monkeypatch: pytest.MonkeyPatch, precision: str, bf16: bool, actual: str) -> None:
    """There is no TF32 on a CPU."""
    monkeypatch.setattr(versions, "computes_bf16", lambda precision, device: precision == "bf16" or (
        precision == "auto" and bf16))
    found = rank_versions(precision, CPU)  # type: ignore[arg-type]
    assert (found.precision, found.cuda, found.nccl) == (actual, None, None)


@pytest.mark.parametrize(("precision", "gpus", "expected"), [
    ("auto", (H100,), ("NVIDIA H100", "bf16")), ("auto", (T4,), ("Tesla T4", "fp32")), ("auto", (), ("", "")),
    ("tf32", (H100,), ("NVIDIA H100", "tf32")), ("fp32", (), ("", "fp32"))])
def test_the_preflight_check_knows_gpus_by_another_process(precision: str, gpus: tuple[Device, ...],
                                                            expected: tuple[str, str]) -> None:
    found = preflight_versions(precision, cuda=True, here=bool(gpus), gpus=gpus)  # type: ignore[arg-type]
    assert (found.device, found.precision) == expected
    assert (found.cuda, found.nccl) == (torch.version.cuda, "")


def test_the_preflight_check_of_a_cluster_job_does_not_report_this_machines_cpu() -> None:
    found = preflight_versions("auto", cuda=False, here=False)
    assert (found.device, found.precision, found.cuda, found.nccl) == ("", "", None, None)
    assert preflight_versions("fp32", cuda=False, here=True).device == cpu_name()


def test_the_name_of_a_cpu(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    assert cpu_name(file) == platform.machine()
    file.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9654 96-Core Processor\nflags\t: fpu\n")
    assert cpu_name(file) == "AMD EPYC 9654 96-Core Processor"


def test_torchvision_is_not_imported_for_its_version() -> None:
    program = ("import sys, torch; from drumbeat.trainers.versions import rank_versions; "
               "print(rank_versions('fp32', torch.device('cpu')).torchvision, 'torchvision' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "False"
