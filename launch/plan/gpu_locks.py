"""Which process holds which GPU of this machine, so that no two runs take the same one.

The node launcher of a run, or the process of a --debug run, listens at a socket in Linux's abstract namespace whose
name holds that of the GPU. The kernel lets no second process bind to the name, whoever's it is, and frees it when the
launcher ends in whatever way; there are no files to be cleaned up. SO_PEERCRED tells who listens (unix(7)). Programs
other than Drumbeat take no part in this, nor do SLURM's jobs, whose GPUs SLURM hands out; and containers with a network
of their own do not see each other.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.plan.gpus import identities

PATIENCE = 5.0
"""Seconds to try again: a run that is just ending frees its GPUs, and two that start at once may each get a part of
what both need."""
WAITING = 4096
"""Connections that a socket holds, of those who have asked who listens."""
UNKNOWN = "another process"


@contextmanager
def hold_gpus(plan: JobPlan) -> Iterator[JobPlan]:
    """The plan with those GPUs that its run holds for as long as the context lasts: as many as it has ranks, the first
    free ones. Raises `LaunchError` where too few are free. Other plans than those for GPUs of this machine stay as they
    are."""
    pool = _pool(plan)
    if not pool:
        yield plan
        return
    until = time.monotonic() + PATIENCE
    while True:
        with ExitStack() as held:
            names: list[str] = []
            others: dict[str, str] = {}
            for name, identity in pool.items():
                if len(names) == plan.topology.ranks_per_node:
                    break
                if lock := _lock(identity):
                    held.enter_context(lock)
                    names.append(name)
                else:
                    others[name] = identity
            if len(names) == plan.topology.ranks_per_node:
                yield replace(plan, environment=plan.environment | {"CUDA_VISIBLE_DEVICES": ",".join(names)})
                return
        if time.monotonic() > until:
            raise _too_few(plan, len(pool), {name: _holder(others[name]) or UNKNOWN for name in others})
        time.sleep(random.uniform(0.05, 0.2))


def check_free(plan: JobPlan) -> None:
    """Raises `LaunchError`, with who holds which GPU, where fewer are free than the plan needs."""
    pool = _pool(plan)
    holders = {name: words for name, identity in pool.items() if (words := _holder(identity))}
    if pool and len(pool) - len(holders) < plan.topology.ranks_per_node:
        raise _too_few(plan, len(pool), holders)


def _too_few(plan: JobPlan, count: int, holders: Mapping[str, str]) -> LaunchError:
    """For a plan with so many GPUs to choose from, of which some are held."""
    free, needed = count - len(holders), plan.topology.ranks_per_node
    return LaunchError(Fault(
        what="too few GPUs are free", where="launch.gpus",
        given="\n".join([f"{needed} rank{'s' * (needed > 1)} with a GPU each, {free} of {count} free",
                         *(f"GPU {name} is held by {words}" for name, words in holders.items())]),
        remedy=f"{f'Use --gpus {free}, wait' if free else 'Wait'} for a run to end, or stop one: drumbeat stop RUN"))


def _pool(plan: JobPlan) -> Mapping[str, str]:
    """The GPUs to choose from: their names, and what identifies them; none where SLURM chooses them."""
    names = plan.environment.get("CUDA_VISIBLE_DEVICES", "")
    return identities(names.split(",")) if names else {}


def _lock(identity: str) -> socket.socket | None:
    """A socket that holds a GPU until it is closed; None where another process holds it."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(_address(identity))
        lock.listen(WAITING)
    except OSError as error:
        lock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return lock


def _holder(identity: str) -> str:
    """Who holds a GPU, in words; '' where nobody does."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(_address(identity))
            process = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        except BlockingIOError:
            return UNKNOWN
        except ConnectionRefusedError:
            return ""
    words: list[bytes] = []
    with suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    runs = [Path(os.fsdecode(word)).parent for word in words if word.endswith(b"/submitit")]
    return f"run {runs[0].parent.name}/{runs[0].name} (process {process})" if runs else (
        f"process {process}" if process else UNKNOWN)


def _address(identity: str) -> str:
    return f"\0drumbeat/gpu/{identity}"[:100]
