"""What can be found out on the login node before a job is queued, in seconds and not after a night in the queue: that
the nodes will see the run's folder, and that SLURM would take this very request.

What only torch can know, targets, weights and data, `drumbeat.launch.start.preflight` has looked at.
"""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.backends.contract import Request
from drumbeat.launch.backends.environment import environment
from drumbeat.launch.backends.script import GIVEN
from drumbeat.launch.slurm.client import ask
from drumbeat.launch.slurm.sbatch_errors import refusal

OF_ONE_MACHINE = ("tmpfs", "ramfs", "devtmpfs", "overlay", "squashfs")
"""File systems that no other machine sees: memory, and the layers of a container."""
TEMPORARY = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/run"))
"""Folders that each machine has for itself, whatever file system they are on."""


def check_cluster(request: Request) -> str:
    """Asks SLURM about the job. Returns when it would start it, in its own words, '' where it does not answer now or
    cannot tell. Raises `LaunchError`."""
    with environment(request.plan, GIVEN):
        answer = ask("sbatch", "--test-only", script=request.text)
    if answer.code == 0:
        found = re.search(r"to start at (\d{4}\S+).* on nodes? (\S+)", answer.text)
        if not found or int(found[1][:4]) > time.localtime().tm_year + 1:  # behind a job without a time limit: in 2537
            return ""
        return f"SLURM would start it at {found[1].replace('T', ' ')} on {found[2]}"
    if answer.unreachable:  # no fault of the request's
        return ""
    raise LaunchError(refusal(answer.text, request.plan.site, "sbatch --test-only"))


def check_shared(plan: JobPlan) -> None:
    """Raises `LaunchError` where the nodes would not see the run's folder. This machine sees it, and may be all there
    is of an allocation."""
    alone = plan.allocation is not None and plan.allocation.nodes == 1 and "SLURMD_NODENAME" in os.environ
    if not alone and (fault := unshared(Path(plan.run_dir))):
        raise LaunchError(fault)


def unshared(folder: Path, mounts: Path = Path("/proc/mounts")) -> Fault | None:
    """What is wrong with a run folder that only this machine sees; None where nothing is known to be, and where this
    machine is all of the cluster."""
    real = folder.resolve()
    kind = file_system(real, mounts)
    temporary = next((place for place in TEMPORARY if real.is_relative_to(place)), None)
    if (kind not in OF_ONE_MACHINE and temporary is None) or _alone():
        return None
    why = f"it is on {kind}" if kind in OF_ONE_MACHINE else f"every machine has a {temporary} of its own"
    return Fault(what="the nodes of the cluster would not see the run folder", where=str(folder), given=why,
                 remedy="Choose a folder that is shared, in your home for example: --runs DIR. If the nodes do see "
                        "this one: --no-preflight")


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that a folder is on, or will be: ext4, nfs4, lustre, tmpfs; '' if unknown."""
    found, depth = "", -1
    for line in mounts.read_text(errors="replace").splitlines() if mounts.exists() else ():
        _, at, kind = line.split()[:3]
        place = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), at))  # "\040" is a blank
        if folder.is_relative_to(place) and len(place.parts) >= depth:
            found, depth = kind, len(place.parts)
    return found


def _alone() -> bool:
    """Whether all nodes of the cluster are this machine."""
    code, said = ask("sinfo", "--noheader", "--Node", "--format", "%n")
    here = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    return code == 0 and bool(said.split()) and set(said.split()) <= here
