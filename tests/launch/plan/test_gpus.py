"""Which GPUs a process may use: CUDA's rules for CUDA_VISIBLE_DEVICES as torch applies them, MIG instances, WSL2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from drumbeat.launch.plan import gpus
from drumbeat.launch.plan.gpus import Gpu, identities, present, usable_together, visible
from drumbeat.launch.plan.job import Machine

UUIDS = ("GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", "GPU-5d77ba0d-0000-2b2c-524d-9e3d8d2b8a78",
         "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6")
MIG = ("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb")
THREE = tuple(map(Gpu, UUIDS))
SPLIT = Gpu(UUIDS[0], MIG)
LIST = f"""\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: {UUIDS[0]})
  MIG 3g.20gb     Device  0: (UUID: {MIG[0]})
  MIG 1g.5gb      Device  1: (UUID: {MIG[1]})
GPU 1: NVIDIA A100-SXM4-40GB (UUID: {UUIDS[1]})
"""

VALUES = [
    "", "0", "1,0", "0,-1,1", "-1", "none", "NoDevFiles", "0,none,1", "0,3,1", "7", "2,2", "0,1,0", "0,-1,0", "0,9,9",
    " 1 , 2", "1gpu2,2ampere", "+1", "0,,1", "0, GPU-8932f937", ",".join(UUIDS), "GPU-8932f937", "GPU-5d", "GPU-5d5",
    "GPU-8932f937,GPU-5d5b", "GPU-8932f937,0", "GPU-8932f937, GPU-5d5b", "GPU-8932f937,GPU-99,GPU-5d5b",
    "GPU-8932,GPU-8932f937", "GPU-8932,GPU-8932", "GPU-99",
]


@pytest.mark.parametrize("value", VALUES)
def test_as_many_as_torch_counts(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: len(UUIDS))
    monkeypatch.setattr(torch.cuda, "_raw_device_uuid_nvml", lambda: list(UUIDS))
    assert len(visible(value, THREE)) == torch.cuda._device_count_nvml()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("value", "machine", "names"), [
    (None, THREE, ("0", "1", "2")),
    (None, (), ()),
    ("0,1", (), ()),
    (" 1gpu, 0", THREE, ("1", "0")),
    ("GPU-8932f937,GPU-5d5b", THREE, ("GPU-8932f937", "GPU-5d5b")),
    ("GPU-8932f937,GPU-5d5b", (Gpu(), Gpu()), ("GPU-8932f937", "GPU-5d5b")),
    (f"{MIG[1]},{MIG[0]}", THREE, (MIG[1], MIG[0])),
    (f"MIG-{UUIDS[2]}/1/0,0", THREE, (f"MIG-{UUIDS[2]}/1/0",)),
    (f"{MIG[0]},{MIG[0]}", THREE, ()),
    (None, (SPLIT, THREE[1]), ("1",)),
    ("0,1", (SPLIT, THREE[1]), ("1",)),
    ("0", (SPLIT, THREE[1]), MIG),
    (None, (SPLIT,), MIG),
])
def test_names(value: str | None, machine: tuple[Gpu, ...], names: tuple[str, ...]) -> None:
    assert visible(value, machine) == names


def test_a_process_uses_one_mig_instance() -> None:
    assert usable_together(MIG) == MIG[:1]
    assert usable_together(("0", "1")) == ("0", "1")
    assert usable_together(()) == ()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Replaces this machine's device files, WSL2 libraries and nvidia-smi by these."""
    monkeypatch.setattr(gpus, "DEV", tmp_path / "dev")
    monkeypatch.setattr(gpus, "WSL", tmp_path / "wsl")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for folder in ("dev", "wsl", "bin"):
        (tmp_path / folder).mkdir()

    def has(*files: str, smi: str = "") -> None:
        present.cache_clear()
        for file in files:
            (tmp_path / file).touch()
        if smi:
            (tmp_path / "output").write_text(smi)
            program = tmp_path / "bin" / "nvidia-smi"
            program.write_text(f'#!/bin/sh\n[ "$*" = -L ] && /bin/cat {tmp_path}/output\n')
            program.chmod(0o755)

    yield has
    present.cache_clear()


DEVICES = ("dev/nvidia0", "dev/nvidia1", "dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-caps")


def test_device_files_are_counted_where_there_is_no_nvidia_smi(machine: Callable[..., None]) -> None:
    machine(*DEVICES)
    assert present() == (Gpu(), Gpu())


def test_nvidia_smi_lists_uuids_and_mig_instances(machine: Callable[..., None]) -> None:
    machine(*DEVICES, smi=LIST)
    assert present() == (SPLIT, Gpu(UUIDS[1]))


def test_nvidia_smi_lists_the_gpus_of_a_container(machine: Callable[..., None]) -> None:
    machine(*DEVICES, smi=LIST.splitlines()[3])
    assert present() == (Gpu(UUIDS[1]),)


def test_an_nvidia_smi_that_fails_hides_no_gpu(machine: Callable[..., None]) -> None:
    machine(*DEVICES, smi="Failed to initialize NVML: Driver/library version mismatch\n")
    assert present() == (Gpu(), Gpu())


def test_wsl_has_no_device_files(machine: Callable[..., None]) -> None:
    machine("dev/dxg")
    assert present() == ()  # without a driver of NVIDIA's in Windows
    machine("wsl/libcuda.so.1")
    assert present() == (Gpu(),)
    machine(smi="\n".join(f"GPU {number}: NVIDIA RTX (UUID: {uuid})" for number, uuid in enumerate(UUIDS)))
    assert present() == THREE


def test_one_gpu_has_one_identity_whatever_it_is_called(machine: Callable[..., None]) -> None:
    machine(*DEVICES, smi=LIST)
    assert identities(["1", "GPU-5d77", "GPU-5d", "7", MIG[0]]) == {
        "1": UUIDS[1], "GPU-5d77": UUIDS[1], "GPU-5d": "GPU-5d", "7": "7", MIG[0]: MIG[0]}


def test_this_machine(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    machine(*DEVICES, smi=LIST)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Machine.here().gpus == ("1",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,-1,1")
    assert Machine.here().gpus == MIG
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "NoDevFiles")
    assert Machine.here().gpus == ()
