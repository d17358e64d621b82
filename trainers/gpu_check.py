"""Checks whether torch can use this machine's GPUs, and explains what is wrong if it cannot."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

from drumbeat.configs.errors import Fault, PreflightError

ON_CPU = "or use --procs N for ranks on the CPU."
BUILDS = "https://pytorch.org/get-started/locally"
REMEDIES = (
    ("too old", "Update the NVIDIA driver; or install a torch for the CUDA version that nvidia-smi shows, for example: "
                "pip install torch --index-url https://download.pytorch.org/whl/cu126"),
    ("no NVIDIA driver", "Install the driver. In a container, pass the GPUs on: docker run --gpus all, apptainer exec "
                         "--nv"),
    ("Error 802", "Machines with NVSwitch need NVIDIA's fabric manager in the driver's version: systemctl start "
                  "nvidia-fabricmanager"),
    ("Error 803", "The driver was updated after it was loaded, or a container holds another version of its libraries: "
                  "restart the machine or the container"),
    ("Error 804", "Take CUDA's compatibility libraries (cuda-compat) out of LD_LIBRARY_PATH, or update the driver"),
    ("unknown error", "Reload a module of the driver (modprobe -r nvidia_uvm; modprobe nvidia_uvm), or restart the "
                      "machine"),
)
"""What to do about errors of CUDA's initialization, by parts of their texts (torch 2.14, c10/cuda/CUDAFunctions.cpp);
the numbers are those of cudaError_t."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU as torch sees it."""

    name: str
    capability: tuple[int, int]
    """Its compute capability: (9, 0) for an H100."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What torch reports about itself and the GPUs."""

    torch: str
    """Its version."""
    cuda: str | None
    """The CUDA version that torch is built for; None for a build without CUDA."""
    architectures: tuple[str, ...] = ()
    """The architectures of its kernels: machine code (sm_90), and PTX that the driver compiles (compute_90)."""
    error: str = ""
    """Why CUDA cannot be initialized."""
    devices: tuple[Device, ...] = ()
    inaccessible: tuple[str, ...] = ()
    """The driver's device files that this process cannot open, each with the reason."""


def find_gpus() -> Found:
    """Asks torch in a forked process, because a process that has initialized CUDA cannot fork others that use it, and
    because a broken driver may kill the process."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            return pool.submit(_find_gpus).result()
    except BrokenProcessPool:
        error = "the process that initialized it was killed"
        return Found(torch=torch.__version__, cuda=torch.version.cuda, error=error)


def _find_gpus() -> Found:
    error, devices = "", []
    try:
        torch.cuda.init()
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            devices.append(Device(name=found.name, capability=(found.major, found.minor)))
    except Exception as reason:  # RuntimeError, AssertionError, or one of torch's own
        error = str(reason)
    return Found(torch=torch.__version__, cuda=torch.version.cuda, architectures=tuple(torch.cuda.get_arch_list()),
                 error=error, devices=tuple(devices), inaccessible=inaccessible_files())


def inaccessible_files(dev: Path = Path("/dev")) -> tuple[str, ...]:
    """The device files of NVIDIA's driver that cannot be opened because of their permissions, or because of the cgroup
    of a container or a job."""
    inaccessible = []
    for file in sorted([*dev.glob("nvidia[0-9]*"), *dev.glob("nvidiactl"), *dev.glob("nvidia-uvm")]):
        try:
            os.close(os.open(file, os.O_RDWR))
        except OSError as error:
            inaccessible.append(f"{file}: {error.strerror}")
    return tuple(inaccessible)


def gpu_faults(found: Found, names: Sequence[str]) -> list[Fault]:
    """Why torch cannot use the GPUs with these names, which are those in CUDA_VISIBLE_DEVICES."""
    names = names[:1] if names[0].startswith("MIG-") else names  # a process sees one MIG instance
    if found.cuda is None:
        return [Fault(what=f"torch {found.torch} is built without CUDA", where="launch.gpus", given=_visible(names),
                      remedy=f"Install a build for CUDA ({BUILDS}), {ON_CPU}")]
    if found.error:
        return [_start_fault(found)]
    faults = [] if len(found.devices) >= len(names) else [_fewer_fault(found, names)]
    unsupported: dict[Device, list[str]] = {}
    for name, device in zip(names, found.devices, strict=False):
        if not runs_on(found.architectures, device.capability):
            unsupported.setdefault(device, []).append(name)
    good = [name for name in names if not any(name in bad for bad in unsupported.values())]
    return faults + [_code_fault(found, device, bad, good) for device, bad in unsupported.items()]


def check_visible(local_rank: int) -> None:
    """Raises `PreflightError` in a rank without a GPU: SLURM may have allocated fewer, or MIG instances, of which CUDA
    shows one."""
    if local_rank >= (count := torch.cuda.device_count()):
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "is not set")
        raise PreflightError(Fault(what=f"CUDA shows {count} GPU{'s' * (count != 1)} on this node, too few for local "
                                      f"rank {local_rank}", where="launch.gpus", given=f"CUDA_VISIBLE_DEVICES {given}",
                                 remedy="Use fewer ranks on each node: --gpus N. CUDA shows at most one MIG instance "
                                        "to a process."))


def runs_on(architectures: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether kernels compiled for these architectures run on a GPU of this compute capability.

    Machine code runs on GPUs of the same major version with the same or a later minor one, PTX on all later GPUs; what
    is compiled for an architecture with a suffix runs on exactly that one (`a`), or within its major version (`f`)
    (CUDA Programming Guide, "Compute Capabilities"). Exceptions for Jetson are left out.
    """
    for architecture in architectures:
        if match := re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture):
            kind, compiled, suffix = match[1], (int(match[2]), int(match[3])), match[4]
            forward = kind == "compute" and not suffix
            if compiled == capability or (compiled < capability and suffix != "a" and (
                    forward or compiled[0] == capability[0])):
                return True
    return False


def _visible(names: Sequence[str]) -> str:
    return f"CUDA_VISIBLE_DEVICES={','.join(names)}"


def _start_fault(found: Found) -> Fault:
    numbered = re.search(r"Error \d+: .*", found.error)
    message = numbered[0] if numbered else re.split(r"\. |\n", found.error)[0]
    remedy = next((remedy for part, remedy in REMEDIES if part in found.error), "")
    if found.inaccessible:
        remedy = "Allow this process to open these files; a container needs --gpus, or --device for each file"
    return Fault(what=f"CUDA cannot be initialized: {message}", where="launch.gpus",
                 given="\n".join(found.inaccessible),
                 remedy=f"{remedy or 'See the output of nvidia-smi and dmesg'}; {ON_CPU}")


def _fewer_fault(found: Found, names: Sequence[str]) -> Fault:
    count = len(found.devices)
    remedy = "Compare with nvidia-smi -L, and choose the GPUs that work: CUDA_VISIBLE_DEVICES=0,1"
    if found.inaccessible:
        remedy = "Allow this process to open these files, or choose other GPUs: CUDA_VISIBLE_DEVICES=0,1"
    elif any("MIG" in device.name for device in found.devices):
        remedy = ("CUDA shows a process one MIG instance and no other GPU: use --gpus 1, or choose whole GPUs: "
                  "CUDA_VISIBLE_DEVICES=0,1")
    return Fault(what=f"CUDA shows {count} of {len(names)} GPUs", where="launch.gpus",
                 given="\n".join([_visible(names), *found.inaccessible]), remedy=f"{remedy}; {ON_CPU}")


def _code_fault(found: Found, device: Device, bad: Sequence[str], good: Sequence[str]) -> Fault:
    """A fault for GPUs of one kind for which this build of torch has no kernels."""
    capability = ".".join(map(str, device.capability))
    older = device.capability < min(map(_version, found.architectures), default=(0, 0))
    other = "one for an earlier CUDA version" if older else "a newer version"
    leave = f"Leave {'it' if len(bad) == 1 else 'them'} out: CUDA_VISIBLE_DEVICES={','.join(good)}\n" if good else ""
    return Fault(what=f"torch {found.torch} has no kernels for GPU {', '.join(bad)}: {device.name}, compute capability "
                      f"{capability}", where="launch.gpus",
                 given=f"it has kernels for {', '.join(found.architectures)}",
                 remedy=f"{leave}Install a torch with kernels for it, perhaps {other} ({BUILDS}), {ON_CPU}")


def _version(architecture: str) -> tuple[int, int]:
    major, minor = divmod(int(re.sub(r"\D", "", architecture)), 10)
    return major, minor
