"""The errors about GPUs that torch cannot use, from what torch reports on this machine and on others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from drumbeat.configs.errors import PreflightError, UserError
from drumbeat.launch.commands.main import main
from drumbeat.launch.plan import gpus
from drumbeat.trainers.gpu_check import Device, Found, check_visible, find_gpus, gpu_faults, inaccessible_files, runs_on
from tests.tiny import write_config

WHEEL = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
"""What torch 2.14.1+cu130 is compiled for."""
H100, P100 = Device(name="NVIDIA H100", capability=(9, 0)), Device(name="Tesla P100", capability=(6, 0))
SLICE = Device(name="NVIDIA H100 MIG 1g.10gb", capability=(9, 0))


def found(*devices: Device, error: str = "", inaccessible: tuple[str, ...] = (),
          cuda: str | None = "13.0") -> Found:
    return Found(torch="2.14.1+cu130", cuda=cuda, architectures=WHEEL, error=error, devices=devices,
                 inaccessible=inaccessible)


@pytest.mark.parametrize(("capability", "architectures", "expected"), [
    ((9, 0), WHEEL, True), ((8, 9), WHEEL, True), ((7, 5), WHEEL, True), ((10, 3), WHEEL, True),
    ((6, 1), WHEEL, False), ((7, 0), WHEEL, False), ((11, 0), WHEEL, False), ((13, 0), WHEEL, False),
    ((8, 0), ["sm_86"], False),
    ((13, 0), ["sm_90", "compute_90"], True), ((8, 6), ["compute_90"], False), ((9, 0), ["compute_90"], True),
    ((9, 0), ["sm_90a"], True), ((9, 1), ["sm_90a"], False), ((10, 0), ["compute_90a"], False),
    ((10, 3), ["sm_100f"], True), ((11, 0), ["compute_100f"], False),
    ((9, 0), [], False), ((9, 0), ["gfx90a"], False),
])
def test_which_kernels_run_on_which_gpu(capability: tuple[int, int], architectures: list[str], expected: bool) -> None:
    assert runs_on(architectures, capability) == expected


@pytest.mark.parametrize(("facts", "names"), [
    (found(H100, H100), ["0", "1"]), (found(H100, H100), ["0"]), (found(SLICE), ["MIG-a", "MIG-b"]),
])
def test_no_faults(facts: Found, names: list[str]) -> None:
    assert gpu_faults(facts, names) == []


SCREENS = {
    "a build without CUDA": (found(cuda=None), ["0"], """\
error: torch 2.14.1+cu130 is built without CUDA
  where  launch.gpus
  given  CUDA_VISIBLE_DEVICES=0
  fix    Install a build for CUDA (https://pytorch.org/get-started/locally), or
         use --procs N for ranks on the CPU."""),
    "an old driver": (found(error="The NVIDIA driver on your system is too old (found version 11040). Please update."),
                      ["0"], """\
error: CUDA cannot be initialized: The NVIDIA driver on your system is too old
       (found version 11040)
  where  launch.gpus
  fix    Update the NVIDIA driver; or install a torch for the CUDA version that
         nvidia-smi shows, for example: pip install torch --index-url
         https://download.pytorch.org/whl/cu126; or use --procs N for ranks on
         the CPU."""),
    "no fabric manager": (found(error="Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions "
                                      "before? Error 802: system not yet initialized"), ["0"], """\
error: CUDA cannot be initialized: Error 802: system not yet initialized
  where  launch.gpus
  fix    Machines with NVSwitch need NVIDIA's fabric manager in the driver's
         version: systemctl start nvidia-fabricmanager; or use --procs N for
         ranks on the CPU."""),
    "files that must not be opened": (
        found(error="No CUDA GPUs are available", inaccessible=("/dev/nvidia0: Operation not permitted",)), ["0"], """\
error: CUDA cannot be initialized: No CUDA GPUs are available
  where  launch.gpus
  given  /dev/nvidia0: Operation not permitted
  fix    Allow this process to open these files; a container needs --gpus, or
         --device for each file; or use --procs N for ranks on the CPU."""),
    "fewer GPUs": (found(H100), ["0", "1"], """\
error: CUDA shows 1 of 2 GPUs
  where  launch.gpus
  given  CUDA_VISIBLE_DEVICES=0,1
  fix    Compare with nvidia-smi -L, and choose the GPUs that work:
         CUDA_VISIBLE_DEVICES=0,1; or use --procs N for ranks on the CPU."""),
    "a MIG instance": (found(SLICE), ["0", "1"], """\
error: CUDA shows 1 of 2 GPUs
  where  launch.gpus
  given  CUDA_VISIBLE_DEVICES=0,1
  fix    CUDA shows a process one MIG instance and no other GPU: use --gpus 1,
         or choose whole GPUs: CUDA_VISIBLE_DEVICES=0,1; or use --procs N for
         ranks on the CPU."""),
    "an old GPU beside others": (found(P100, H100, P100), ["0", "1", "3"], """\
error: torch 2.14.1+cu130 has no kernels for GPU 0, 3: Tesla P100, compute
       capability 6.0
  where  launch.gpus
  given  it has kernels for sm_75, sm_80, sm_86, sm_90, sm_100, sm_120
  fix    Leave them out: CUDA_VISIBLE_DEVICES=1
         Install a torch with kernels for it, perhaps one for an earlier CUDA
         version (https://pytorch.org/get-started/locally), or use --procs N for
         ranks on the CPU."""),
    "a new GPU": (found(Device(name="NVIDIA R100", capability=(13, 0))), ["0"], """\
error: torch 2.14.1+cu130 has no kernels for GPU 0: NVIDIA R100, compute
       capability 13.0
  where  launch.gpus
  given  it has kernels for sm_75, sm_80, sm_86, sm_90, sm_100, sm_120
  fix    Install a torch with kernels for it, perhaps a newer version
         (https://pytorch.org/get-started/locally), or use --procs N for ranks
         on the CPU."""),
}


@pytest.mark.parametrize("name", SCREENS)
def test_faults(name: str) -> None:
    facts, names, screen = SCREENS[name]
    assert str(PreflightError(*gpu_faults(facts, names))) == screen


def test_all_faults_at_once() -> None:
    faults = gpu_faults(found(P100), ["0", "1"])
    assert [fault.what.partition(":")[0] for fault in faults] == [
        "CUDA shows 1 of 2 GPUs", "torch 2.14.1+cu130 has no kernels for GPU 0"]


def test_device_files_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidia1").symlink_to(tmp_path)  # a folder cannot be opened for writing, not even by root
    (tmp_path / "nvidia-modeset").symlink_to(tmp_path)
    assert inaccessible_files(tmp_path) == (f"{tmp_path}/nvidia1: Is a directory",)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_machine_without_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    """From existing device files to the printed error, which is torch's own."""
    monkeypatch.chdir(write_config(tmp_path).parent)
    monkeypatch.setattr("drumbeat.launch.plan.job.present", lambda: (gpus.Gpu(),))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert main(["run", "tiny.yaml", "--gpus", "1", "phases.head.freeze=[backbon]"]) == 2
    screen = capsys.readouterr().err
    assert "error: CUDA cannot be initialized: Found no NVIDIA driver on your system\n" in screen
    assert "error: the model has no module 'backbon'\n" in screen
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny.yaml"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_rank_without_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    with pytest.raises(UserError, match="CUDA shows 0 GPUs on this node, too few for local rank 0") as error:
        check_visible(0)
    assert error.value.faults[0].given == "CUDA_VISIBLE_DEVICES MIG-a,MIG-b"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_real_gpus() -> None:
    facts = find_gpus()
    count = torch.cuda.device_count()
    assert len(facts.devices) == count
    assert gpu_faults(facts, list(map(str, range(count)))) == []
    assert [fault.what for fault in gpu_faults(facts, list(map(str, range(count + 1))))] == [
        f"CUDA shows {count} of {count + 1} GPUs"]
    check_visible(count - 1)
    with pytest.raises(PreflightError):
        check_visible(count)
