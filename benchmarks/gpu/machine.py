"""The machine on which the figures were measured."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

from benchmarks.gpu.scale import Scale


def describe(scale: Scale) -> dict[str, str]:
    """GPU, driver, versions and cores; "" for what is missing or unknown."""
    card = capability = ""
    if scale.on_gpu:
        properties = torch.cuda.get_device_properties(scale.device)
        card = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        capability = f"{properties.major}.{properties.minor}"
    return {"card": card, "capability": capability, "driver": driver(), "torch": torch.__version__,
            "cuda": torch.version.cuda or "", "cudnn": str(torch.backends.cudnn.version() or ""),
            "nccl": ".".join(map(str, torch.cuda.nccl.version())) if scale.on_gpu else "",
            "python": platform.python_version(), "cores": str(len(os.sched_getaffinity(0)))}


def driver(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of NVIDIA's kernel module, from /proc."""
    found = re.search(r"Kernel Module\D*([\d.]+)", file.read_text()) if file.exists() else None
    return found[1] if found else ""
