"""Binds a rank to the cores near its GPU: those of the NUMA node to whose PCI bus the GPU is attached. Copies between
the GPU and the rank's memory then do not cross NUMA nodes.

torch has `torch.numa.binding` (2.9 to 2.14) for torchrun's --numa-binding. It is not used here: it requires the program
numactl even if it does not call it, ends a rank whose binding fails, and may leave a rank fewer cores than threads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

DEVICES = Path("/sys/bus/pci/devices")


def bind_near(device: torch.device, *, threads: int) -> None:
    """Binds this process, its threads and its future child processes to the cores near its GPU. `threads` is the number
    of threads of each rank; `near` says when all cores are used instead."""
    allowed = os.sched_getaffinity(0)
    addresses = [pci_address(index) for index in range(torch.cuda.device_count())]
    cores = near(addresses, device.index, allowed, threads=threads)
    if cores != allowed:
        bind(cores)
        print(f"bound to the {len(cores)} cores near GPU {addresses[device.index]}", flush=True)


def near(addresses: Sequence[str], own: int, allowed: Set[int], *, threads: int,
         devices: Path = DEVICES) -> Set[int]:
    """The allowed cores near GPU number `own` of the GPUs at these PCI addresses. All allowed cores if none is near, if
    /sys does not say, or if there are too few for the threads of all ranks whose GPUs are near the same
    cores."""
    local = [cores_in(devices / address / "local_cpulist") & allowed for address in addresses]
    sharing = sum(not local[own].isdisjoint(other) for other in local)
    return local[own] if len(local[own]) >= max(1, sharing) * threads else allowed


def cores_in(file: Path) -> set[int]:
    """The cores in a list such as 0-15,32-47; none if the file does not exist."""
    try:
        ends = [part.partition("-") for part in file.read_text().strip().split(",") if part]
    except OSError:
        return set()
    return {core for first, _, last in ends for core in range(int(first), int(last or first) + 1)}


def pci_address(index: int) -> str:
    """The PCI address of a GPU, as /sys writes it: 0000:3b:00.0."""
    found: Any = torch.cuda.get_device_properties(index)
    return f"{found.pci_domain_id:04x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}.0"


def bind(cores: Set[int]) -> None:
    """Binds all threads of this process to these cores."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # the thread has ended
            os.sched_setaffinity(int(thread.name), cores)
