"""Checks on the login node before a job is queued: that the nodes can see the run's folder, and that SLURM would accept
this request. `drumbeat.launch.start.preflight` checks targets, weights and data, which needs torch.
"""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.layers import short
from drumbeat.configs.preconditions import data_paths
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.schema import Config
from drumbeat.launch.backends.contract import Request
from drumbeat.launch.backends.environment import environment
from drumbeat.launch.backends.script import JOB_VARIABLES
from drumbeat.launch.slurm.client import PROGRAM_MISSING, Answer, run_slurm
from drumbeat.launch.slurm.sbatch_errors import sbatch_fault

LOCAL_FILE_SYSTEMS = ("tmpfs", "ramfs", "devtmpfs", "overlay", "squashfs")
"""File systems that no other machine can see: in memory, or layers of a container."""
SHARED_FILE_SYSTEMS = re.compile(r"nfs|lustre|gpfs|beegfs|ceph|gluster|cifs|smb|afs|panfs|wekafs|pvfs2|9p|fuse|autofs")
"""Matches the beginning of file systems that other machines may see as well."""
TEMPORARY = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/run"))
"""Folders that each machine has its own of, on any file system."""


def check_cluster(request: Request) -> str:
    """Submits the job with --test-only. Returns when SLURM would start it, as text; '' if it does not answer or does
    not know. Raises `LaunchError` if SLURM would reject it."""
    answer = _tried(request)
    if answer.code == 0:
        found = re.search(r"to start at (\d{4}\S+).* on nodes? (\S+)", answer.text)
        if not found or int(found[1][:4]) > time.localtime().tm_year + 1:  # 2537 if a job without limit is ahead
            return ""
        return f"SLURM would start it at {found[1].replace('T', ' ')} on {found[2]}"
    if answer.unreachable:  # not a fault of the request
        return ""
    raise LaunchError(sbatch_fault(answer.text, request.plan.site, "sbatch --test-only"))


def is_rejected(request: Request) -> bool:
    """Whether SLURM would reject the job, as far as it answers."""
    answer = _tried(request)
    return answer.code not in (0, PROGRAM_MISSING) and not answer.unreachable


def _tried(request: Request) -> Answer:
    with environment(request.plan, JOB_VARIABLES, request.text):
        return run_slurm("sbatch", "--test-only", script=request.text)


def check_shared(plan: JobPlan) -> None:
    """Raises `LaunchError` if the nodes cannot see the run's folder, or Python outside of a container. An allocation
    may consist of this machine alone."""
    if _runs_here(plan):
        return
    if fault := unshared(Path(plan.run_dir)):
        raise LaunchError(fault)
    if not plan.site.prefix and (fault := unshared_python(Path(plan.python))):
        raise LaunchError(fault)


def _runs_here(plan: JobPlan) -> bool:
    """Whether the only node of the allocation is this machine."""
    return plan.allocation is not None and plan.allocation.nodes == 1 and "SLURMD_NODENAME" in os.environ


def known_to_nodes(plan: JobPlan, config: Config, mounts: Path = Path("/proc/mounts")) -> list[str]:
    """A note on what exists here, but on a file system that the nodes may not see: they know, and check it before
    their ranks start."""
    root = config.data.root
    paths = {path if root is None or not Path(path).is_relative_to(root) else root: "data"
             for path in data_paths(config)} | {plan.folder: "the current folder"}
    if not plan.site.prefix:
        paths[plan.python] = "Python"
    local = [f"{short(Path(path))} ({what})" for path, what in paths.items()
             if not SHARED_FILE_SYSTEMS.match(file_system(Path(path).resolve(), mounts))]
    if not local or _runs_here(plan) or _alone():
        return []
    return [f"only the nodes know whether they have {', '.join(local)}, which are on this machine's own disks"]


def unshared(folder: Path, mounts: Path = Path("/proc/mounts")) -> Fault | None:
    """The fault of a run folder that only this machine can see; None if no fault is known, or if this machine is the
    whole cluster."""
    real = folder.resolve()
    kind = file_system(real, mounts)
    temporary = next((place for place in TEMPORARY if real.is_relative_to(place)), None)
    if (kind not in LOCAL_FILE_SYSTEMS and temporary is None) or _alone():
        return None
    why = f"it is on {kind}" if kind in LOCAL_FILE_SYSTEMS else f"every machine has its own {temporary}"
    return Fault(what="the nodes of the cluster cannot see the run folder", where=str(folder), given=why,
                 remedy="Choose a shared folder, for example in your home: --runs DIR. If the nodes can see "
                        "this one: --no-preflight")


def unshared_python(python: Path) -> Fault | None:
    """The fault of a Python, in an environment or with its standard library, that only this machine has. One outside of
    temporary folders may be installed on each machine."""
    folders = {python.parent, python.resolve().parent}
    for folder in sorted(folders):
        temporary = next((place for place in TEMPORARY if folder.is_relative_to(place)), None)
        if temporary and not _alone():
            return Fault(what="the nodes of the cluster cannot see this Python", where=str(python),
                         given=f"every machine has its own {temporary}",
                         remedy="Make the environment in a shared folder, for example in your home. If the nodes have "
                                "the same one: --no-preflight")
    return None


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of a folder's file system: ext4, nfs4, lustre, tmpfs; '' if unknown."""
    found, depth = "", -1
    for line in mounts.read_text(errors="replace").splitlines() if mounts.exists() else ():
        _, at, kind = line.split()[:3]
        place = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), at))  # "\040" is a space
        if folder.is_relative_to(place) and len(place.parts) >= depth:
            found, depth = kind, len(place.parts)
    return found


def _alone() -> bool:
    """Whether this machine is the whole cluster."""
    code, output = run_slurm("sinfo", "--noheader", "--Node", "--format", "%n")
    here = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    return code == 0 and bool(output.split()) and set(output.split()) <= here
