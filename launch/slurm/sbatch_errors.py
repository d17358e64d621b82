"""Errors of sbatch on one screen, with the value in the cluster profile that caused them, and what to do."""

from __future__ import annotations

import getpass
import os
import re

from drumbeat.configs.errors import Fault, nearest
from drumbeat.configs.site import Site
from drumbeat.launch.slurm.client import run_slurm
from drumbeat.launch.slurm.limits import parse_limit

SBATCH_ERRORS: tuple[tuple[str, str, str], ...] = (
    (r"policy|submit limit", "qos", "The job exceeds a limit of its QOS or account, or there are too many jobs: "
     "sacctmgr show associations user={user} shows the limits."),
    (r"invalid qos", "qos", "sacctmgr show associations user={user} lists the QOS you may use."),
    (r"invalid account|account/partition combination", "account",
     "sacctmgr show associations user={user} lists the accounts and QOS you may use."),
    (r"invalid partition", "partition", "sinfo lists the partitions: {partitions}."),
    (r"user's group not permitted|partition.*(access|permitted)", "partition",
     "Choose a partition you may use: {partitions}."),
    (r"time limit|time specification", "time_minutes", "sinfo -o '%P %l' shows the time limit of each partition. A "
     "run that needs longer is requeued by itself."),
    (r"feature|constraint", "constraint", "sinfo -o '%P %f' shows the features of the nodes."),
    (r"memory", "mem_gb_per_node", "sinfo -o '%P %m' shows the memory of the nodes, in MB."),
    (r"generic resource|gres", "gpu_type", "sinfo -o '%P %G' shows the GPUs of the nodes: choose gpu_type and "
     "gpu_flag accordingly, and no more GPUs with --gpus."),
    (r"node configuration|more processors|node count|cpu count|nodes required|too many|not available", "",
     "sinfo -o '%P %D %c %m %G' shows each partition's nodes, their cores, memory and GPUs: request no more with "
     "--nodes, --gpus and launch.cpus_per_rank."),
    (r"unrecognized option|invalid option", "sbatch", "man sbatch lists the options of this version of SLURM."),
    (r"contact|timed out", "", "SLURM's controller does not answer. Submit again when scontrol ping shows that it "
     "does."),
)
"""Patterns of sbatch's errors, the key in the profile that is wrong, and what to do. The first match applies."""


def sbatch_fault(output: str, site: Site, command: str) -> Fault:
    """The fault for an error of sbatch; `command` is the command that printed it."""
    lines = [re.sub(r"^(sbatch|srun): (error: )?", "", line).strip() for line in output.splitlines()]
    words = "\n".join(dict.fromkeys(line for line in lines if line))
    key, remedy = _limit(words.split()) or next(
        ((key, remedy) for pattern, key, remedy in SBATCH_ERRORS if re.search(pattern, words, re.IGNORECASE)),
        ("", "--dry-run shows the script."))
    value = getattr(site, key) if key else None
    if "{partitions}" in remedy:
        code, listed = run_slurm("sinfo", "--noheader", "--format", "%R")
        names = listed.split() if code == 0 else []
        close = nearest(str(value), names) if value else ""
        remedy = close if close.startswith("Did") else remedy.format(partitions=", ".join(names) or "none that you see")
    return Fault(what="SLURM would reject this job" if "--test-only" in command else "sbatch refused the job",
                 where=f"the cluster's profile, {key}: {value}" if value else command, given=words,
                 remedy=remedy.replace("{user}", _user()))


def _user() -> str:
    """The user's name, or number if the user is not in passwd."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        return str(os.getuid())


def _limit(words: list[str]) -> tuple[str, str] | None:
    """The key and the remedy for a limit that sbatch names; None if it names none."""
    found = next(filter(None, map(parse_limit, words)), None)
    if not found:
        return None
    show = "sacctmgr show qos" if found.key == "qos" else "sacctmgr show associations user={user}"
    return found.key, f"{found.message[0].upper()}{found.message[1:]}: {found.remedy}. {show} shows the limits."
