"""The cores near a GPU: those of the NUMA node to whose PCI bus it is attached. A rank that runs on them reaches its
GPU, and the memory it is fed from, without crossing to another node.

torch has `torch.numa.binding` (2.9 to 2.14) for torchrun's --numa-binding. It is not used here: it needs the program
numactl even where it does not call it, ends a rank whose binding fails, and may leave a rank fewer cores than threads.
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
    """Moves this process, with the threads that it has and all that it starts from now on, to the cores near its GPU.
    `threads` is how many each rank of this node has; see `near` for where that leaves all cores."""
    allowed = os.sched_getaffinity(0)
    addresses = [pci_address(index) for index in range(torch.cuda.device_count())]
    cores = near(addresses, device.index, allowed, threads=threads)
    if cores != allowed:
        bind(cores)
        print(f"bound to the {len(cores)} cores near GPU {addresses[device.index]}", flush=True)


def near(addresses: Sequence[str], own: int, allowed: Set[int], *, threads: int,
         devices: Path = DEVICES) -> Set[int]:
    """Those of the allowed cores that are near the GPU number `own` of those at these PCI addresses; all that are
    allowed where none is near, where the machine does not tell, or where the near ones are too few to give as many
    threads to each rank whose GPU has some of them near."""
    local = [cores_in(devices / address / "local_cpulist") & allowed for address in addresses]
    sharing = sum(not local[own].isdisjoint(other) for other in local)
    return local[own] if len(local[own]) >= max(1, sharing) * threads else allowed


def cores_in(file: Path) -> set[int]:
    """The cores of a list such as 0-15,32-47; none where the file is absent."""
    try:
        ends = [part.partition("-") for part in file.read_text().strip().split(",") if part]
    except OSError:
        return set()
    return {core for first, _, last in ends for core in range(int(first), int(last or first) + 1)}


def pci_address(index: int) -> str:
    """Of a GPU, as /sys names it: 0000:3b:00.0."""
    found: Any = torch.cuda.get_device_properties(index)
    return f"{found.pci_domain_id:04x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}.0"


def bind(cores: Set[int]) -> None:
    """Binds all threads of this process to these cores."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)
