"""Finds out the versions, the device and the precision of this process: `configs/run/versions.py` has the record."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

import drumbeat
from drumbeat.configs.errors import hang
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.versions import AttemptVersions, Versions, changes
from drumbeat.trainers.build import Precision, computes_bf16
from drumbeat.trainers.checkpoints.manager import Checkpoint
from drumbeat.trainers.gpu_check import Device


def rank_versions(precision: Precision, device: torch.device) -> Versions:
    """The versions of a rank, which may use its GPU."""
    otherwise = "fp16" if precision == "fp16" else "fp32"
    if device.type != "cuda":
        return _versions(device=cpu_name(), precision=_named(computes_bf16(precision, device), otherwise))
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else None
    return _versions(cuda=torch.version.cuda, nccl=nccl, device=torch.cuda.get_device_name(device),
                     precision=_named(computes_bf16(precision, device), "tf32" if precision == "tf32" else otherwise))


def preflight_versions(precision: Precision, *, cuda: bool, here: bool, gpus: Sequence[Device] = ()) -> Versions:
    """The versions of the preflight check, which does not initialise CUDA. `here` is whether the run trains on this
    machine, and `gpus` are the GPUs that another process has found."""
    if here and not cuda:
        return rank_versions(precision, torch.device("cpu"))
    known: str = "" if precision == "auto" else precision if cuda or precision != "tf32" else "fp32"
    if precision == "auto" and gpus:
        known = _named(gpus[0].capability >= BF16_CAPABILITY, "fp32")
    return _versions(cuda=torch.version.cuda if cuda else None, nccl="" if cuda else None,
                     device=gpus[0].name if gpus else "", precision=known)


BF16_CAPABILITY = (8, 0)
"""The compute capability from which on GPUs multiply bfloat16: torch.cuda.is_bf16_supported, read in torch 2.14.1."""


def record_versions(attempt: Attempt, now: Versions, checkpoint: Checkpoint | None) -> None:
    """Writes an attempt's versions, and prints what has changed since the checkpoint."""
    found = changes(checkpoint.state.versions if checkpoint else None, now)
    for change in found:
        print(hang("note: ", change), flush=True)
    AttemptVersions(versions=now, changes=found).write(attempt.versions)


def _versions(**fields: str | None) -> Versions:
    try:
        torchvision: str | None = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        torchvision = None
    return Versions(drumbeat=drumbeat.__version__, python=platform.python_version(), torch=torch.__version__,
                    torchvision=torchvision, **fields)  # type: ignore[arg-type]


def _named(bf16: bool, otherwise: str) -> str:
    return "bf16" if bf16 else otherwise


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The model of this machine's CPU; its architecture if the kernel does not tell the model."""
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
                platform.machine())
