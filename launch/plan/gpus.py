"""The GPUs of this machine, found without torch and CUDA, and those that a process may use."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

DEV = Path("/dev")
WSL = Path("/usr/lib/wsl/lib")
"""Where WSL2 puts the files of the Windows NVIDIA driver; empty without that driver."""
SMI_SECONDS = 30.0
"""Seconds that nvidia-smi may take: without the persistence daemon it initializes each GPU."""
SMI_LINE = re.compile(r"^(?:GPU \d+: .*\(UUID: (GPU-[^)]+)\)|\s+MIG .*\(UUID: (MIG-[^)]+)\))", re.MULTILINE)
"""The lines of `nvidia-smi -L`: a GPU, and below it its MIG instances."""


@dataclass(frozen=True)
class Gpu:
    """One physical GPU."""

    uuid: str = ""
    """GPU-8932f937-..., or "" if nvidia-smi does not report it."""
    instances: tuple[str, ...] = ()
    """The names of its MIG instances."""


@cache  # nvidia-smi may take seconds
def present() -> tuple[Gpu, ...]:
    """The GPUs of this machine, numbered as nvidia-smi numbers them, which is the order of the PCI bus.

    If nvidia-smi is missing or fails, the device files are counted. WSL2 has none: there one GPU is assumed if the
    driver's libcuda exists.
    """
    files = list(DEV.glob("nvidia[0-9]*"))
    wsl = (DEV / "dxg").exists() and any(WSL.glob("libcuda.so*"))
    return (_listed() or (Gpu(),) * (len(files) or 1)) if files or wsl else ()


def _listed() -> tuple[Gpu, ...]:
    """The GPUs that nvidia-smi lists; none if it is missing or fails."""
    program = shutil.which("nvidia-smi") or str(WSL / "nvidia-smi")
    try:
        output = subprocess.run([program, "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=SMI_SECONDS).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    gpus: list[Gpu] = []
    for gpu, instance in SMI_LINE.findall(output):
        if gpu:
            gpus.append(Gpu(gpu))
        elif gpus:
            gpus[-1] = Gpu(gpus[-1].uuid, (*gpus[-1].instances, instance))
    return tuple(gpus)


def visible(value: str | None, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """The names of the GPUs that remain with a `value` of CUDA_VISIBLE_DEVICES, None if it is not set. If there are
    both whole GPUs and MIG instances, only the whole GPUs: CUDA never shows both to a process.

    The rules are those of CUDA as in torch 2.14 (`_parse_visible_devices` in torch/cuda/__init__.py): all entries are
    of the same type as the first, the list ends at the first invalid entry, and a duplicate entry leaves no GPU. UUIDs
    may be abbreviated. Names of MIG instances are kept unchanged.
    """
    names = list(map(str, range(len(gpus)))) if value is None else _entries(value)
    if names and names[0].startswith("MIG-"):
        return tuple(names)
    if names and names[0].startswith("GPU-") and not all(gpu.uuid for gpu in gpus):
        return tuple(names)  # the UUIDs are unknown
    found = [_index(name, gpus) for name in names]
    valid = [index for index in takewhile(lambda index: index is not None, found) if index is not None]
    if len(set(valid)) < len(valid):
        return ()
    whole = [name for name, index in zip(names, valid, strict=False) if not gpus[index].instances]
    return tuple(whole or [instance for index in valid for instance in gpus[index].instances])


def _entries(value: str) -> list[str]:
    """The entries of a list up to the first invalid one, with normalized numbers; none if there is a duplicate."""
    kind = value[:4] if value.startswith(("GPU-", "MIG-")) else ""
    names: list[str] = []
    for word in value.split(","):
        number = re.match(r"[+-]?[0-9]+", word.strip())  # CUDA reads "1gpu" as 1
        name = word if kind else str(int(number[0])) if number else ""
        if name in names:
            return []
        if not name or name.startswith("-") or not name.startswith(kind):
            break
        names.append(name)
    return names


def _index(name: str, gpus: Sequence[Gpu]) -> int | None:
    """The index of the GPU with a name; None if there is none, or more than one."""
    if name.isdecimal():
        return int(name) if int(name) < len(gpus) else None
    found = [index for index, gpu in enumerate(gpus) if gpu.uuid.startswith(name)]
    return found[0] if len(found) == 1 else None


def usable_together(names: Sequence[str]) -> tuple[str, ...]:
    """The GPUs of these names that one process can use together: all of them, but only one MIG instance (NVIDIA's MIG
    user guide, "CUDA Device Enumeration")."""
    return tuple(names[:1] if names and names[0].startswith("MIG-") else names)


def identities(names: Sequence[str]) -> dict[str, str]:
    """An identity of each GPU that does not depend on its name: the UUID if nvidia-smi reports it, otherwise the
    name."""
    gpus = present()
    found = {name: _index(name, gpus) for name in names}
    return {name: name if index is None else gpus[index].uuid or name for name, index in found.items()}
