"""What sbatch says to a job that it does not take, on one screen: with the value of the cluster's profile that it is
about, and what to do."""

from __future__ import annotations

import getpass
import re

from drumbeat.configs.errors import Fault, nearest
from drumbeat.configs.schema import Site
from drumbeat.launch.slurm.client import ask
from drumbeat.launch.slurm.limits import limit

REFUSALS: tuple[tuple[str, str, str], ...] = (
    (r"policy|submit limit", "qos", "The job is larger than its QOS or account allows, or there are too many: sacctmgr "
     "show associations user={user} shows the limits."),
    (r"invalid qos", "qos", "sacctmgr show associations user={user} lists the QOS that you may use."),
    (r"invalid account|account/partition combination", "account",
     "sacctmgr show associations user={user} lists the accounts and QOS you may use."),
    (r"invalid partition", "partition", "sinfo lists the partitions: {partitions}."),
    (r"user's group not permitted|partition.*(access|permitted)", "partition",
     "Choose one that you may use: {partitions}."),
    (r"time limit|time specification", "time_minutes", "sinfo -o '%P %l' shows the longest time of each partition. A "
     "run that needs longer is queued again by itself."),
    (r"feature|constraint", "constraint", "sinfo -o '%P %f' shows the features of the nodes."),
    (r"memory", "mem_gb_per_node", "sinfo -o '%P %m' shows the memory of the nodes, in MB."),
    (r"generic resource|gres", "gpu_type", "sinfo -o '%P %G' shows which GPUs the nodes have: choose gpu_type and "
     "gpu_flag to fit, and no more with --gpus."),
    (r"node configuration|more processors|node count|cpu count|nodes required|too many|not available", "",
     "sinfo -o '%P %D %c %m %G' shows each partition's nodes, their cores, memory and GPUs: ask for no more with "
     "--nodes, --gpus and launch.cpus_per_rank."),
    (r"unrecognized option|invalid option", "sbatch", "man sbatch lists the options of this version of SLURM."),
    (r"contact|timed out", "", "SLURM's controller does not answer: scontrol ping shows when it does. Then submit "
     "again."),
)
"""What sbatch may say, which key of the profile that is about, and what to do. The first that fits."""


def refusal(said: str, site: Site, asked: str) -> Fault:
    """The screen for what sbatch said to a job of this profile; `asked` is how it was asked."""
    lines = [re.sub(r"^(sbatch|srun): (error: )?", "", line).strip() for line in said.splitlines()]
    words = "\n".join(dict.fromkeys(line for line in lines if line))
    key, remedy = _limit(words.split()) or next(
        ((key, remedy) for pattern, key, remedy in REFUSALS if re.search(pattern, words, re.IGNORECASE)),
        ("", "--dry-run shows the script that it was asked about."))
    value = getattr(site, key) if key else None
    if "{partitions}" in remedy:
        code, listed = ask("sinfo", "--noheader", "--format", "%R")
        names = listed.split() if code == 0 else []
        close = nearest(str(value), names) if value else ""
        remedy = close if close.startswith("Did") else remedy.format(partitions=", ".join(names) or "none that you see")
    return Fault(what="SLURM would not take this job" if "--test-only" in asked else "sbatch refused the job",
                 where=f"the cluster's profile, {key}: {value}" if value else asked, given=words,
                 remedy=remedy.replace("{user}", getpass.getuser()))


def _limit(words: list[str]) -> tuple[str, str] | None:
    """The key and the remedy for a limit that sbatch names, if it names one."""
    found = next(filter(None, map(limit, words)), None)
    if not found:
        return None
    show = "sacctmgr show qos" if found.key == "qos" else "sacctmgr show associations user={user}"
    return found.key, f"{found.words[0].upper()}{found.words[1:]}: {found.remedy}. {show} shows the limits."
