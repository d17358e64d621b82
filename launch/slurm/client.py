"""The one way to SLURM's programs: squeue, scontrol, sinfo, scancel and sbatch --test-only all go through `ask`.

A program that is missing, one that does not answer in time and one that cannot reach the controller are answers like
others, with a code that is not 0; what follows from that is the caller's to say. Only the job that is queued itself is
sbatch's and submitit's (`slurm/submission.py`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import NamedTuple

WAIT = 20.0
"""Seconds to wait for an answer of the controller: less than SLURM's KillWait, 30 s unless the site says otherwise. In
that time a launcher that is being ended has to ask why and to write it down."""

FORMAT = "%i|%T|%r|%S|%P|%k"
"""Of squeue: id, state, reason, expected start, partition, comment; JSON would differ between versions."""

UNREACHABLE = re.compile(r"contact|connect|timed out|time out|zero bytes|transport endpoint|communication|"
                         r"does not answer", re.IGNORECASE)
"""SLURM's words, and `ask`'s, where the controller was not reached, or its answer is missing."""

NO_JOB = "Invalid job id"
"""SLURM's words for a job that is over and forgotten."""


class SilentError(Exception):
    """SLURM does not answer: its words, or that there are none."""


class Answer(NamedTuple):
    """What one of SLURM's programs said."""

    code: int
    """Its exit code; 127 where there is no such program, 1 where it did not answer in time."""
    text: str
    """Its output and errors; never empty where the code is not 0."""

    @property
    def unreachable(self) -> bool:
        """Whether it says nothing of what was asked, because the controller could not be asked."""
        return self.code != 0 and UNREACHABLE.search(self.text) is not None


def ask(program: str, *words: str, script: str | None = None) -> Answer:
    """What a program of SLURM's says to these words, and to a script on its standard input. Times come in the standard
    format, whatever the user has set."""
    if shutil.which(program) is None:
        return Answer(127, f"there is no {program} on PATH")
    try:
        done = subprocess.run([program, *words], input=script, stdin=subprocess.DEVNULL if script is None else None,
                              capture_output=True, text=True, check=False, timeout=WAIT,
                              env=os.environ | {"SLURM_TIME_FORMAT": "standard"})
    except subprocess.TimeoutExpired:
        return Answer(1, f"{program} does not answer within {WAIT:g} s")
    said = (done.stdout + done.stderr).strip()
    return Answer(done.returncode, said or f"{program} ended with code {done.returncode}" * (done.returncode != 0))


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


def job_state(job: str) -> str:
    """The state of a job that is not over, as squeue names it: PENDING, RUNNING, ...; '' where it is. Raises
    `SilentError`."""
    code, said = ask("squeue", "--noheader", "--jobs", job, "--format", "%T")
    if NO_JOB in said:
        return ""
    if code != 0:
        raise SilentError(said)
    return said.partition("\n")[0]


def steps(job: str, name: str) -> list[str]:
    """The steps of a job that bear a name, as scancel takes them; none where the job is over. Raises `SilentError`."""
    code, said = ask("squeue", "--noheader", "--steps", "--jobs", job, "--format", "%i|%j")
    if code != 0 and NO_JOB not in said:
        raise SilentError(said)
    found = (line.partition("|") for line in said.splitlines())
    return [step.strip() for step, _, called in found if called == name]


def cancel_jobs(*ids: str) -> None:
    """Ends jobs, or steps of jobs, or takes them out of the queue. Raises `SilentError`."""
    code, said = ask("scancel", *ids)
    if code != 0 and NO_JOB not in said:  # which is over already
        raise SilentError(said)
