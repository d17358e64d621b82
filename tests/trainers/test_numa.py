"""Which cores are near a GPU according to /sys, and binding a process to them with all of its threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from drumbeat.configs.layers import ROOT
from drumbeat.trainers.numa import cores_in, near, pci_address

EIGHT = [f"0000:{bus}:00.0" for bus in ("07", "0b", "48", "4c", "88", "8b", "c8", "cb")]
"""PCI addresses of the GPUs of a machine with two NUMA nodes of 8 cores, 16 threads, each."""
NODES = ("0-7,16-23", "8-15,24-31")
FIRST, SECOND = {*range(8), *range(16, 24)}, {*range(8, 16), *range(24, 32)}


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """A /sys/bus/pci/devices with these GPUs, four at each node."""
    for number, address in enumerate(EIGHT):
        (tmp_path / address).mkdir()
        (tmp_path / address / "local_cpulist").write_text(f"{NODES[number // 4]}\n")
    return tmp_path


@pytest.mark.parametrize(("text", "cores"), [
    ("0-3,8\n", {0, 1, 2, 3, 8}), ("5\n", {5}), ("\n", set()), ("0-1,4-5,7", {0, 1, 4, 5, 7}),
])
def test_lists_of_cores(tmp_path: Path, text: str, cores: set[int]) -> None:
    (tmp_path / "list").write_text(text)
    assert cores_in(tmp_path / "list") == cores
    assert cores_in(tmp_path / "absent") == set()


@pytest.mark.parametrize(("own", "allowed", "threads", "expected"), [
    (0, FIRST | SECOND, 4, FIRST),
    (4, FIRST | SECOND, 4, SECOND),
    (4, FIRST | SECOND, 5, FIRST | SECOND),  # four ranks with five threads each
    (3, {0, 1, 16, 17, 24, 25}, 1, {0, 1, 16, 17}),  # a container with six cores
    (7, {0, 1, 16, 17, 24, 25}, 1, {0, 1, 16, 17, 24, 25}),  # the two on its node are not enough for four ranks
    (4, FIRST, 1, FIRST),
])
def test_eight_ranks_on_two_nodes(devices: Path, own: int, allowed: set[int], threads: int,
                                  expected: set[int]) -> None:
    assert near(EIGHT, own, allowed, threads=threads, devices=devices) == expected


def test_ranks_on_one_node_may_need_the_cores_of_both(devices: Path) -> None:
    """Four ranks share the cores of the machine, eight each."""
    assert near(EIGHT[:4], 0, FIRST | SECOND, threads=8, devices=devices) == FIRST | SECOND
    assert near([EIGHT[0], EIGHT[4]], 1, FIRST | SECOND, threads=16, devices=devices) == SECOND


def test_a_machine_without_this_information(tmp_path: Path) -> None:
    assert near(EIGHT, 0, FIRST, threads=1, devices=tmp_path) == FIRST


def test_all_threads_are_bound_and_children_inherit_it() -> None:
    core = min(os.sched_getaffinity(0))
    script = f"""
import os, threading, subprocess, sys
from pathlib import Path
from drumbeat.trainers.numa import bind
done = threading.Event()
thread = threading.Thread(target=done.wait)
thread.start()
bind({{{core}}})
tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
assert len(tasks) > 1
print([os.sched_getaffinity(task) == {{{core}}} for task in tasks].count(False))
print(subprocess.run([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], capture_output=True,
                     text=True).stdout)
done.set()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", f"{{{core}}}"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_real_gpu() -> None:
    addresses = [pci_address(index) for index in range(torch.cuda.device_count())]
    assert all((Path("/sys/bus/pci/devices") / address).is_dir() for address in addresses)
    allowed = os.sched_getaffinity(0)
    threads = max(1, len(allowed) // len(addresses))
    for own in range(len(addresses)):
        cores = near(addresses, own, allowed, threads=threads)
        assert len(cores) >= threads
        assert cores <= allowed
