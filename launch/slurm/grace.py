"""How long a run takes from a stop request to the saved checkpoint, measured at earlier stops; and whether SLURM's
grace time is enough for that."""

from __future__ import annotations

import math
import re

from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.slurm.client import run_slurm

MARGIN = 1.5
"""How much longer than the longest save so far the next one may take, as a factor."""


def save_seconds(run: RunDir) -> float:
    """The longest time in seconds from a stop request to the save, over all stopped attempts; 0 if there is none. Both
    times come from the run folder's file system, so that different clocks do not matter."""
    longest = 0.0
    for stop in run.attempts.glob("*/stop.json"):
        try:
            longest = max(longest, stop.with_name("saved.json").stat().st_mtime - stop.stat().st_mtime)
        except FileNotFoundError:
            continue  # this attempt was not saved
    return longest


def grace_seconds(run: RunDir, least: int, seconds: float) -> int:
    """How many seconds before its time limit a job must stop: `least`, the site's value, or more if saving took longer;
    but never more than half of the `seconds` that it has, or it would stop at once."""
    wanted = max(least, math.ceil(MARGIN * save_seconds(run)))
    return wanted if 2 * wanted < seconds else int(seconds / 2)


def grace_warning(run: RunDir, partition: str) -> str:
    """A warning if preemption leaves less time than the run needs to save; '' if it is enough or unknown. SLURM ends a
    preempted job after the partition's GraceTime, or without one after KillWait."""
    needed = save_seconds(run)
    output = run_slurm("scontrol", "--oneliner", "show", "partition", partition).text
    grace = int(found[1]) if (found := re.search(r"GraceTime=(\d+)", output)) else 0
    if not needed or not found or "PreemptMode=OFF" in output:
        return ""
    where = f"the GraceTime of partition {partition}"
    if not grace:
        found = re.search(r"KillWait\s*=\s*(\d+)", run_slurm("scontrol", "show", "config").text)
        grace, where = int(found[1]) if found else 30, "KillWait"
    return "" if grace > needed else (
        f"{where} is {grace} s, and this run took {needed:.0f} s to save: preempted, it would lose what it did since "
        "its last checkpoint. checkpoints.every_minutes says how much that is")
