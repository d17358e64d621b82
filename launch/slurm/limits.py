"""The limits of accounts and QOS, from SLURM's names for them: what one means, and what to do about it.

sbatch says the name where it refuses a job for a limit, and squeue where a job waits for one: QOSMaxGRESPerUser,
AssocGrpCPUMinutesLimit, MaxJobsPerAccount. A partition may have a QOS of its own, whose limits are named like others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = re.compile(r"(?P<whose>QOS|Assoc|)(?P<kind>Grp|Max|Min)"
                  r"(?P<what>SubmitJob|Job|Wall|CPU|Cpu|GRES|Mem|Node|Billing|License|Energy)(?:s|Duration|ory)?"
                  r"(?P<over>RunMinutes|Minutes)?(?P<each>PerJob|PerNode|PerUser|PerAccount)?(?:Limit|NotSatisfied)?")

COUNTED: dict[str, tuple[str, str]] = {
    "CPU": ("cores", "fewer launch.cpus_per_rank"),
    "GRES": ("GPUs", "fewer --gpus"),
    "Mem": ("memory", "less memory in the profile"),
    "Node": ("nodes", "fewer --nodes"),
    "Wall": ("time", "a shorter time_minutes (a run that needs longer is queued again by itself)"),
    "Billing": ("billing units", "fewer --gpus or cores"),
    "License": ("licenses", "fewer licenses"),
    "Energy": ("joules", "fewer nodes"),
    "Job": ("jobs at work", ""),
    "SubmitJob": ("jobs in the queue", ""),
}
"""What a limit counts, in words, and what to ask for to stay below it."""


@dataclass(frozen=True)
class Limit:
    """A limit in words."""

    words: str
    """What it says of a job."""
    remedy: str
    """What to do instead: a sentence without its first capital and its full stop."""
    key: str
    """The key of the cluster's profile that decides whose limits these are: account or qos."""
    waits: bool
    """Whether it will do to wait."""


def limit(name: str) -> Limit | None:
    """The limit that SLURM calls by a name; None for what is no limit of an account or a QOS."""
    found = NAME.fullmatch(name)
    if not found:
        return None
    key, whose = ("account", "its account") if found["whose"] == "Assoc" else ("qos", "its QOS")
    what, over, each = found["what"].replace("Cpu", "CPU"), found["over"], found["each"]
    counted, less = COUNTED[what]
    much = "much" if what in ("Mem", "Wall") else "many"
    if over:  # of GPUs, say, times the time limit
        counted, much = f"{counted.removesuffix('s')} minutes", "many"
        less += " or a shorter time_minutes"
    waits = False
    if found["kind"] == "Min":
        words = f"it asks for {'less' if much == 'much' else 'fewer'} {counted} than {whose} wants a job to have"
        less = f"more {counted}"
    elif found["kind"] == "Grp" and (over == "Minutes" or what == "Wall"):
        words, less = f"the {counted} of {whose} {'is' if much == 'much' else 'are'} used up", ""
    elif found["kind"] == "Grp":
        words, waits = f"all jobs of {whose} together may have only so {much} {counted}", True
    elif each in ("PerJob", "PerNode"):
        on_one = " on a node" if each == "PerNode" else ""
        words = f"it asks for more {counted}{on_one} than {whose} lets a job have"
    else:
        one = "account" if each == "PerAccount" else "user"
        words, waits = f"{whose} lets one {one} have only so {much} {counted}", True
    choices = ["wait until some jobs end (squeue --me shows yours)"] * waits
    choices += [f"ask for {less}"] * bool(less)
    choices += [f"choose another {'qos or partition' if key == 'qos' else key} in the profile"]
    return Limit(words, ", ".join([*choices[:-1], "or " * bool(choices[1:]) + choices[-1]]), key, waits)
