"""The job that a node launcher is part of, and what the launcher asks SLURM about it: when the time is up, why the job
was told to end, to queue it again."""

from __future__ import annotations

import os
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from drumbeat.configs.run.folder import Attempt
from drumbeat.configs.run.records import AttemptStart
from drumbeat.launch.slurm.client import ask

Fate = Literal["preempted", "time limit", "requeued", "cancelled", "node failure", "terminated"]

PATIENCE = 120.0
"""Seconds to go on asking it to queue the job again while it cannot be reached."""


@dataclass(frozen=True)
class SlurmJob:
    """The job this process is a task of: one of the run's own, or the user's allocation."""

    job: str
    restarts: int
    """How often SLURM had queued the job again when this process began."""
    after: str = ""
    """The job that this one was queued to follow, if it should end without success."""
    users_own: bool = False
    """Whether it is the user's allocation, which the run leaves when its time is up, and does not have queued again."""

    @classmethod
    def here(cls, *, users_own: bool = False) -> SlurmJob:
        """The job around this process."""
        after = re.search(r"afternotok:(\d+)", os.environ.get("SLURM_JOB_DEPENDENCY", ""))
        return cls(os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_RESTART_COUNT", "0")),
                   after[1] if after and not users_own else "", users_own)

    def end_time(self) -> float:
        """When the job's time is up, in seconds since 1970; infinity where there is no limit, or no answer. SLURM 22.05
        does not tell its tasks, later versions do."""
        if told := os.environ.get("SLURM_JOB_END_TIME"):
            return float(told)
        try:
            return datetime.fromisoformat(self.look().get("EndTime", "")).timestamp()
        except ValueError:  # "Unknown", or nothing
            return float("inf")

    def fate(self) -> Fate:
        """Why SLURM sent SIGTERM.

        While a job is being ended its state is COMPLETING, whatever ended it; that it will run again shows in the count
        of its restarts, that its time was up or a node failed in the reason, that it was preempted in the time at which
        it was. A job that goes on running and was not preempted had its step terminated: by SLURM because another
        node's launcher died, or by a person. Preemption is assumed where SLURM gives no answer.
        """
        found = self.look()
        if int(found.get("Restarts", "0")) > self.restarts:
            return "requeued"
        if found.get("Reason") == "TimeLimit" or found.get("JobState") == "TIMEOUT":
            return "time limit"
        if "NodeDown" in found.get("Reason", "") or found.get("JobState") == "NODE_FAIL":
            return "node failure"
        if not found or found.get("PreemptTime", "None") not in ("None", "N/A", "Unknown"):
            return "preempted"
        return "cancelled" if found.get("JobState") in ("COMPLETING", "CANCELLED") else "terminated"

    def needs_successor(self) -> bool:
        """Whether SLURM, as far as can be told from here, would not queue the job again: because it was submitted or
        made so, or because there is no scontrol to ask with. An allocation that a person holds has no need of it."""
        if self.users_own:
            return False
        found = self.look()
        return found.get("Requeue") != "1" and found.get("BatchFlag") != "0"

    def follows_a_cancelled_job(self) -> bool:
        """Whether somebody has cancelled the job that this one was to follow: then it is not meant to."""
        return bool(self.after) and SlurmJob(self.after, 0).look().get("JobState") == "CANCELLED"

    def requeue(self) -> str:
        """Has the job queued again, which ends it here. Returns '', or why it could not be done."""
        until = time.monotonic() + PATIENCE
        while True:
            answer = ask("scontrol", "requeue", self.job)
            if answer.code == 0 or "pending" in answer.text:  # somebody was faster
                return ""
            if time.monotonic() > until or not answer.unreachable:
                return answer.text
            time.sleep(2)

    def look(self) -> dict[str, str]:
        """The job's fields, as `scontrol show job` names them; empty where there is no answer."""
        code, said = ask("scontrol", "--oneliner", "show", "job", self.job)
        first = said.partition("\n")[0]  # of a job array, the job that was asked for
        return dict(re.findall(r"(\w+)=(\S*)", first)) if code == 0 else {}


LOCAL_JOB = f"local-{secrets.token_hex(8)}"
"""This process, where it is no SLURM job. A process id would not do: a container hands out the same ones each time."""


START = "DRUMBEAT_START"
"""Tells the runs apart that are started one after another in the same allocation."""


def job_name() -> str:
    """What stays the same when SLURM queues a job again."""
    return "-".join(filter(None, [os.environ.get("SLURM_JOB_ID", LOCAL_JOB), os.environ.get(START)]))


def job_identity() -> str:
    """This start of this job's launchers."""
    return ".".join([job_name(), os.environ.get("SLURM_RESTART_COUNT", "0"), os.environ.get("SLURM_STEP_ID", "0")])


def ours(attempt: Attempt, job: str) -> bool:
    """Whether an attempt was claimed by a job, or by a start of a job."""
    start = AttemptStart.read(attempt.launch)
    return start is not None and f"{start.job}.".startswith(f"{job}.")
