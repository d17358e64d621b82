"""What a login node can ask of SLURM about jobs, and have it do to them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

WAIT = 30.0
"""Seconds to wait for an answer of the controller."""

FORMAT = "%i|%T|%r|%S|%P|%k"
"""Of squeue: id, state, reason, expected start, partition, comment; JSON would differ between versions."""


class SilentError(Exception):
    """SLURM does not answer: its words, or that there are none."""


@dataclass(frozen=True)
class QueuedJob:
    """A job that SLURM has not done with."""

    id: str
    state: str
    """PENDING, RUNNING, COMPLETING, ..."""
    reason: str
    """Why it is pending: Priority, Resources, ...; "None" where it is not."""
    start: str
    """When it began, or is expected to, as YYYY-MM-DDTHH:MM:SS; "N/A" where that is not known."""
    partition: str
    comment: str
    """Of a job of ours, the run's id."""


def queued(run_id: str, *ids: str) -> list[QueuedJob]:
    """This user's jobs in the queue that work for a run: those with these ids, and those that carry its id as their
    comment. Raises `SilentError`."""
    code, said = ask("squeue", "--noheader", "--user", str(os.getuid()), "--format", FORMAT)
    if code != 0:
        raise SilentError(said)
    jobs = [QueuedJob(*line.split("|", 5)) for line in said.splitlines() if line.count("|") >= 5]
    return [job for job in jobs if job.id in ids or job.comment == run_id]


def steps(job: str, name: str) -> list[str]:
    """The steps of a job that bear a name, as scancel takes them; none where the job is over. Raises `SilentError`."""
    code, said = ask("squeue", "--noheader", "--steps", "--jobs", job, "--format", "%i|%j")
    if code != 0 and "Invalid job id" not in said:
        raise SilentError(said)
    found = (line.partition("|") for line in said.splitlines())
    return [step.strip() for step, _, called in found if called == name]


def cancel_jobs(*ids: str) -> None:
    """Ends jobs, or steps of jobs, or takes them out of the queue. Raises `SilentError`."""
    code, said = ask("scancel", *ids)
    if code != 0 and "Invalid job id" not in said:  # which is over already
        raise SilentError(said)


def ask(*words: str) -> tuple[int, str]:
    """The exit code and output of one of SLURM's programs."""
    if shutil.which(words[0]) is None:
        return 127, f"there is no {words[0]} on PATH"
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=WAIT,
                              env=os.environ | {"SLURM_TIME_FORMAT": "standard"})
    except subprocess.TimeoutExpired:
        return 1, f"{words[0]} does not answer within {WAIT:g} s"
    return done.returncode, (done.stdout + done.stderr).strip() or f"{words[0]} ended with code {done.returncode}" * (
        done.returncode != 0)
