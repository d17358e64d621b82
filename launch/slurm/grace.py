"""How long a run takes from being asked to stop until it is saved, as measured when it last was; and whether the time
that it is given is enough for that."""

from __future__ import annotations

import math
import re

from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.slurm.client import ask

MARGIN = 1.5
"""How much longer than the longest save so far the next one may take."""


def save_seconds(run: RunDir) -> float:
    """The longest time from the stop marker to the save, over the attempts that were stopped; 0 where none was. Both
    files are dated by the run folder's file system, so the clocks of several machines do not matter."""
    longest = 0.0
    for stop in run.attempts.glob("*/stop.json"):
        try:
            longest = max(longest, stop.with_name("saved.json").stat().st_mtime - stop.stat().st_mtime)
        except FileNotFoundError:
            continue  # it was not saved
    return longest


def lead_seconds(run: RunDir, least: int, minutes: int) -> int:
    """How long before its end a job of so many minutes has to be told of it: at least what the site says, more where
    saving was seen to take longer, and never more than half of the job."""
    return max(least, min(math.ceil(MARGIN * save_seconds(run)), 30 * minutes))


def grace_warning(run: RunDir, partition: str) -> str:
    """What to say where preemption gives the run less time than it takes to save; '' where it is enough, or not known.
    SLURM ends a preempted job after the partition's GraceTime; without one, after KillWait."""
    needed = save_seconds(run)
    told = ask("scontrol", "--oneliner", "show", "partition", partition).text
    grace = int(found[1]) if (found := re.search(r"GraceTime=(\d+)", told)) else 0
    if not needed or not found or "PreemptMode=OFF" in told:
        return ""
    where = f"the GraceTime of partition {partition}"
    if not grace:
        found = re.search(r"KillWait\s*=\s*(\d+)", ask("scontrol", "show", "config").text)
        grace, where = int(found[1]) if found else 30, "KillWait"
    return "" if grace > needed else (
        f"{where} is {grace} s, and this run took {needed:.0f} s to save: preempted, it would lose what it did since "
        "its last checkpoint. checkpoints.every_minutes says how much that is")
