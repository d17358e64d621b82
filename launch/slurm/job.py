"""The job of a node launcher, and what the launcher asks SLURM about it: its time limit, why it is being terminated,
and to requeue it."""

from __future__ import annotations

import os
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.records import AttemptStart
from drumbeat.launch.slurm.client import SHORT_TIMEOUT, job_fields, run_slurm

Reason = Literal["preempted", "time limit", "requeued", "cancelled", "node failure", "terminated"]

REQUEUE_TIMEOUT = 120.0
"""Seconds to retry a requeue while the controller cannot be reached."""


@dataclass(frozen=True)
class SlurmJob:
    """The job that this process is a task of: a job of the run's own, or the user's allocation."""

    job: str
    restarts: int
    """How often SLURM had requeued the job when this process started."""
    previous_job: str = ""
    """The job that this one was queued to follow if it fails."""
    is_allocation: bool = False
    """Whether it is the user's allocation, which the run leaves at its time limit and never requeues."""
    nodes: int = 0
    """The number of nodes that it has had since this process started; 0 if unknown."""

    @classmethod
    def current(cls, *, is_allocation: bool = False) -> SlurmJob:
        """The job of this process."""
        after = re.search(r"afternotok:(\d+(?:_\d+)?)", os.environ.get("SLURM_JOB_DEPENDENCY", ""))
        return cls(os.environ["SLURM_JOB_ID"] if is_allocation else job_id(),
                   int(os.environ.get("SLURM_RESTART_COUNT", "0")),
                   after[1] if after and not is_allocation else "", is_allocation,
                   int(os.environ.get("SLURM_NNODES", "0")))

    def lost_nodes(self, requested: int) -> str:
        """What to report if the job has fewer nodes left than it requested; otherwise ''. A user or an administrator
        can take nodes out of a running job; SLURM kills its steps then. Once requeued, it gets all nodes again."""
        lost = 0 < self.nodes < requested
        return f"SLURM job {self.job} has {self.nodes} of its {requested} nodes left" if lost else ""

    def end_time(self, known: float = float("inf")) -> float:
        """The end of the job's time limit at this moment, in seconds since 1970; infinity without a limit. If SLURM
        does not answer soon: the end as it was `known`, or as it was when the job started, which SLURM 22.05 does not
        say, but later versions do."""
        fields = job_fields(self.job, timeout=SHORT_TIMEOUT)
        try:
            if not fields:
                return known if known < float("inf") else float(os.environ.get("SLURM_JOB_END_TIME", "inf"))
            return datetime.fromisoformat(fields.get("EndTime", "")).timestamp()
        except ValueError:  # "Unknown", or nothing
            return float("inf")

    def why_terminated(self) -> Reason:
        """Why SLURM sent SIGTERM.

        A job that is being terminated is COMPLETING, whatever the cause. A requeue shows in its number of restarts, a
        time limit or a failed node in its reason, a preemption in its preemption time. If the job keeps running and was
        not preempted, only its step was terminated: by SLURM because another node's launcher died, or by a user.
        Preemption is assumed if SLURM gives no answer.
        """
        found = self.fields()
        if (restarts := found.get("Restarts", "")).isdecimal() and int(restarts) > self.restarts:
            return "requeued"
        if found.get("Reason") == "TimeLimit" or found.get("JobState") == "TIMEOUT":
            return "time limit"
        if "NodeDown" in found.get("Reason", "") or found.get("JobState") == "NODE_FAIL":
            return "node failure"
        if not found or found.get("PreemptTime", "None") not in ("None", "N/A", "Unknown"):
            return "preempted"
        return "cancelled" if found.get("JobState") in ("COMPLETING", "CANCELLED") else "terminated"

    def needs_next_job(self) -> bool:
        """Whether SLURM would not requeue the job, as far as is known here: because it was submitted or configured so,
        or because there is no scontrol. A user's allocation does not need it."""
        if self.is_allocation:
            return False
        found = self.fields()
        return found.get("Requeue") != "1" and found.get("BatchFlag") != "0"

    def previous_job_was_cancelled(self) -> bool:
        """Whether the previous job was cancelled: then this one must not resume the run."""
        return bool(self.previous_job) and SlurmJob(self.previous_job, 0).fields().get("JobState") == "CANCELLED"

    def requeue(self) -> str:
        """Requeues the job, which ends this process. Returns '', or why SLURM refused."""
        until = time.monotonic() + REQUEUE_TIMEOUT
        while True:
            answer = run_slurm("scontrol", "requeue", self.job)
            if answer.code == 0 or "pending" in answer.text:  # already requeued
                return ""
            if time.monotonic() > until or not answer.unreachable:
                return answer.text
            time.sleep(2)

    def fields(self) -> dict[str, str]:
        """The job's fields, as `scontrol show job` names them; empty without an answer."""
        return job_fields(self.job)


def job_id(without: str = "") -> str:
    """The id of the job that this process is in: 12, or 12_7 for task 7 of array 12, because the array's last task has
    the array's own number. `without` if it is in none."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", without)


LOCAL_JOB = f"local-{secrets.token_hex(8)}"
"""The name of this process without SLURM. Not the process id, which repeats in containers."""


START = "DRUMBEAT_START"
"""Distinguishes runs that are started one after another in the same allocation."""


def job_name() -> str:
    """A name that stays the same when SLURM requeues the job."""
    return "-".join(filter(None, [job_id(LOCAL_JOB), os.environ.get(START)]))


def job_start_name() -> str:
    """A name of this start of the job's launchers."""
    return ".".join([job_name(), os.environ.get("SLURM_RESTART_COUNT", "0"), os.environ.get("SLURM_STEP_ID", "0")])


def claimed_by(attempt: Attempt, job: str) -> bool:
    """Whether an attempt was claimed by a job, or by a start of a job."""
    start = AttemptStart.read(attempt.launch)
    return start is not None and f"{start.job}.".startswith(f"{job}.")
