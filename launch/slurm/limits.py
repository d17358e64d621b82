"""The limits of accounts and QOS: what SLURM's names for them mean, and what to do.

sbatch prints the name when it rejects a job because of a limit, and squeue while a job waits: QOSMaxGRESPerUser,
AssocGrpCPUMinutesLimit, MaxJobsPerAccount. A partition may have its own QOS, whose limits have the same names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = re.compile(r"(?P<whose>QOS|Assoc|)(?P<kind>Grp|Max|Min)"
                  r"(?P<what>SubmitJob|Job|Wall|CPU|Cpu|GRES|Mem|Node|Billing|License|Energy|BB|Unknown)(?:s|Duration|ory)?"
                  r"(?P<over>RunMinutes|RunMins|Minutes)?(?P<each>PerJob|PerNode|PerUser|PerAccount)?(?:Limit|NotSatisfied)?")

COUNTED: dict[str, tuple[str, str]] = {
    "CPU": ("cores", "fewer launch.cpus_per_rank"),
    "GRES": ("GPUs", "fewer --gpus"),
    "Mem": ("memory", "less memory in the profile"),
    "Node": ("nodes", "fewer --nodes"),
    "Wall": ("time", "a shorter time_minutes (a run that needs longer is requeued by itself)"),
    "Billing": ("billing units", "fewer --gpus or cores"),
    "License": ("licenses", "fewer licenses"),
    "Energy": ("joules", "fewer nodes"),
    "BB": ("burst buffers", "less burst buffer space"),
    "Unknown": ("other resources", "fewer of these resources"),
    "Job": ("running jobs", ""),
    "SubmitJob": ("jobs in the queue", ""),
}
"""What a limit counts, and what to request to stay below it."""


@dataclass(frozen=True)
class Limit:
    """A limit and its remedy."""

    message: str
    """What the limit means for a job."""
    remedy: str
    """What to do: a sentence without a capital and a full stop."""
    key: str
    """The key in the cluster profile that selects the limits: account or qos."""
    waits: bool
    """Whether waiting helps."""


def parse_limit(name: str) -> Limit | None:
    """The limit with a name of SLURM's; None if the name is not that of an account's or QOS's limit."""
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
        message = f"it asks for {'less' if much == 'much' else 'fewer'} {counted} than the minimum of {whose}"
        less = f"more {counted}"
    elif found["kind"] == "Grp" and (over == "Minutes" or what == "Wall"):
        message, less = f"the {counted} of {whose} {'is' if much == 'much' else 'are'} used up", ""
    elif found["kind"] == "Grp":
        message, waits = f"{whose} limits the {counted} of all its jobs together", True
    elif each in ("PerJob", "PerNode"):
        on_one = " on a node" if each == "PerNode" else ""
        message = f"it asks for more {counted}{on_one} than {whose} allows for a job"
    else:
        one = "account" if each == "PerAccount" else "user"
        message, waits = f"{whose} limits the {counted} of each {one}", True
    choices = ["wait until some jobs end (squeue --me shows yours)"] * waits
    choices += [f"request {less}"] * bool(less)
    choices += [f"choose another {'qos or partition' if key == 'qos' else key} in the profile"]
    return Limit(message, ", ".join([*choices[:-1], "or " * bool(choices[1:]) + choices[-1]]), key, waits)
