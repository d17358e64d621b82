"""Locks on the GPUs of this machine, so that no two runs use the same one.

The node launcher of a run, or the process of a --debug run, listens on a socket in Linux's abstract namespace whose
name contains the GPU. The kernel lets no second process bind the same name, and frees it however the launcher ends, so
there are no lock files to clean up. SO_PEERCRED gives the process that listens (unix(7)). Other programs do not use
these locks, nor do SLURM jobs, whose GPUs SLURM assigns; containers with their own network do not see each other's
locks.
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
from drumbeat.configs.text_fields import user_name
from drumbeat.launch.plan.gpus import identities

TIMEOUT = 5.0
"""Seconds to retry: a run that is ending frees its GPUs, and two that start at once may each get only some of
theirs."""
BACKLOG = 4096
"""The backlog of a socket: connections of processes that asked who holds the GPU."""
UNKNOWN = "another process"


@contextmanager
def hold_gpus(plan: JobPlan) -> Iterator[JobPlan]:
    """The plan with the GPUs that its run locks while the context lasts: the first free ones, one for each rank. Raises
    `LaunchError` if too few are free. A plan that uses no GPUs of this machine is unchanged."""
    pool = _pool(plan)
    if not pool:
        yield plan
        return
    until = time.monotonic() + TIMEOUT
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
    """Raises `LaunchError`, with the holder of each GPU, if fewer are free than the plan needs."""
    pool = _pool(plan)
    holders = {name: holder for name, identity in pool.items() if (holder := _holder(identity))}
    if pool and len(pool) - len(holders) < plan.topology.ranks_per_node:
        raise _too_few(plan, len(pool), holders)


def _too_few(plan: JobPlan, count: int, holders: Mapping[str, str]) -> LaunchError:
    """The error for a plan that may use `count` GPUs, of which some are held."""
    free, needed = count - len(holders), plan.topology.ranks_per_node
    return LaunchError(Fault(
        what="not enough free GPUs", where="launch.gpus",
        given="\n".join([f"{needed} rank{'s' * (needed > 1)} with one GPU each, {free} of {count} free",
                         *(f"GPU {name} is used by {holder}" for name, holder in holders.items())]),
        remedy=f"{f'Use --gpus {free}, wait' if free else 'Wait'} for a run to end, or stop one: drumbeat stop RUN"))


def _pool(plan: JobPlan) -> Mapping[str, str]:
    """The GPUs that the plan may use, by name, with their identity; empty if SLURM assigns them."""
    names = plan.environment.get("CUDA_VISIBLE_DEVICES", "")
    return identities(names.split(",")) if names else {}


def _lock(identity: str) -> socket.socket | None:
    """A socket that locks a GPU until it is closed; None if another process holds the lock."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(_address(identity))
        lock.listen(BACKLOG)
    except OSError as error:
        lock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return lock


def _holder(identity: str) -> str:
    """The holder of a GPU, as text; '' if there is none."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(_address(identity))
            process, user, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except BlockingIOError:
            return UNKNOWN
        except ConnectionRefusedError:
            return ""
    if not process:  # in another PID namespace
        return UNKNOWN
    if user != os.geteuid():  # who may have given the process any arguments
        return f"process {process} of {user_name(user)}"
    arguments: list[bytes] = []
    with suppress(OSError):
        arguments = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    runs = [Path(os.fsdecode(argument)).parent for argument in arguments if argument.endswith(b"/submitit")]
    return f"run {runs[0].parent.name}/{runs[0].name} (process {process})" if runs else f"process {process}"


def _address(identity: str) -> str:
    return f"\0drumbeat/gpu/{identity}"[:100]
