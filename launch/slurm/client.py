"""All calls of squeue, scontrol, sinfo, scancel and sbatch --test-only go through `run_slurm`.

A missing program, a timeout and an unreachable controller are answers, too, with an exit code other than 0; the caller
decides what to do. Only job submission itself is different: submitit calls sbatch (`slurm/submission.py`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TIMEOUT = 20.0
"""Seconds to wait for the controller's answer: less than SLURM's KillWait, by default 30 s, in which a launcher that is
being terminated has to ask for the reason and record it."""

SHORT_TIMEOUT = 5.0
"""The same for questions that are not worth waiting for: of a launcher that must not miss a signal meanwhile, and of
commands that can do without the answer."""

FORMAT = "%i|%T|%r|%S|%P|%k|%o"
"""squeue's format: id, state, reason, expected start, partition, comment. Its JSON differs between versions."""

OWN_SETTINGS = re.compile(r"(SQUEUE|SCANCEL|SINFO|SCONTROL|SACCT|SACCTMGR)_|"
                          r"SLURM_(JSON|YAML|BITSTR_LEN|TOPO_LEN|DEBUG_FLAGS|CONF_OUT)$")
"""Variables by which users configure SLURM's programs for themselves: filters such as SQUEUE_PARTITION, and formats."""

UNREACHABLE = re.compile(r"contact|connect|timed out|time out|zero bytes|transport endpoint|communication|"
                         r"does not answer", re.IGNORECASE)
"""Matches errors of SLURM, and of `run_slurm`, if the controller is unreachable or does not answer."""

PROGRAM_MISSING = 127
"""The exit code of an answer if there is no such program."""

NO_JOB = "Invalid job id"
"""SLURM's error for a job that has ended and been forgotten."""


class SlurmUnreachableError(Exception):
    """SLURM cannot be reached; the message is its error."""


class Answer(NamedTuple):
    """The answer of one of SLURM's programs."""

    code: int
    """Its exit code; `PROGRAM_MISSING` if there is no such program, 1 after a timeout."""
    text: str
    """Its output and errors; never empty if the code is not 0."""

    @property
    def unreachable(self) -> bool:
        """Whether the controller could not be reached."""
        return self.code != 0 and UNREACHABLE.search(self.text) is not None


def run_slurm(program: str, *arguments: str, script: str | None = None, cluster: str = "",
              timeout: float | None = None) -> Answer:
    """Runs one of SLURM's programs with these arguments, and a script on its standard input. The user's own settings of
    these programs do not apply. `cluster` is the cluster to ask; '' for that of SLURM_CLUSTERS, or the local one.
    `timeout` is by default `TIMEOUT`."""
    seconds = TIMEOUT if timeout is None else timeout
    if shutil.which(program) is None:
        return Answer(PROGRAM_MISSING, f"there is no {program} on PATH")
    try:
        done = subprocess.run([program, *arguments], input=script, stdin=subprocess.DEVNULL if script is None else None,
                              capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=seconds,
                              env={name: value for name, value in os.environ.items() if not OWN_SETTINGS.match(name)}
                              | {"SLURM_TIME_FORMAT": "standard"} | ({"SLURM_CLUSTERS": cluster} if cluster else {}))
    except subprocess.TimeoutExpired:
        return Answer(1, f"{program} does not answer within {seconds:g} s")
    output = (done.stdout + done.stderr).strip()
    return Answer(done.returncode, output or f"{program} ended with code {done.returncode}" * (done.returncode != 0))


@dataclass(frozen=True)
class QueuedJob:
    """A job in SLURM's queue."""

    id: str
    state: str
    """PENDING, RUNNING, COMPLETING, ..."""
    reason: str
    """Why it is pending: Priority, Resources, ...; "None" if it is not."""
    start: str
    """The actual or expected start, as YYYY-MM-DDTHH:MM:SS; "N/A" if unknown."""
    partition: str
    comment: str
    """The run's id, for jobs of Drumbeat."""
    command: str = ""
    """The path of its script."""


def split_id(job: str) -> tuple[str, str]:
    """The number of a job, and its cluster: "12;gpu" is job 12 of cluster gpu, "12" is job 12 of the local one, ''."""
    number, _, cluster = job.partition(";")
    return number, cluster


def join_id(number: str, cluster: str) -> str:
    """The id of a job of a cluster; '' is the local one."""
    return f"{number};{cluster}" if cluster else number


def queued(run_id: str, *ids: str, timeout: float | None = None) -> list[QueuedJob]:
    """This user's jobs in the queue for a run, on the local cluster or those of these ids: the jobs whose comment
    contains the run's id, or the path of whose script does. A number proves nothing: on the login node of another
    cluster, or when SLURM counts from one again, it is another job's. Raises `SlurmUnreachableError`."""
    jobs = []
    for cluster in sorted({split_id(job)[1] for job in ids} or {""}):
        code, output = run_slurm("squeue", "--noheader", "--user", str(os.getuid()), "--format", FORMAT,
                                 cluster=cluster, timeout=timeout)
        if code != 0:
            raise SlurmUnreachableError(output)
        for line in output.splitlines():
            number, *fields = line.split("|", 6)
            if len(fields) >= 5:
                jobs.append(QueuedJob(join_id(number, cluster), *fields))
    return [job for job in jobs if run_id in [*re.split(r"[^\w.-]+", job.comment), _task_run(job)]
            or Path(job.command).parent.parent.name == run_id]


def _task_run(job: QueuedJob) -> str:
    """The id of the run of an array's task: the array's comment is the beginning of the id, and the number of task 0.
    '' for any other job."""
    found, task = re.search(r"([\w.-]+)@(\d+)", job.comment), split_id(job.id)[0].partition("_")[2]
    return f"{found[1]}-{int(found[2]) + int(task):04d}" if found and task.isdecimal() else ""


def job_state(job: str) -> str:
    """The state of a job in squeue's terms: PENDING, RUNNING, ...; '' if it has ended. Raises
    `SlurmUnreachableError`."""
    number, cluster = split_id(job)
    code, output = run_slurm("squeue", "--noheader", "--jobs", number, "--format", "%T", cluster=cluster)
    if NO_JOB in output:
        return ""
    if code != 0:
        raise SlurmUnreachableError(output)
    return output.partition("\n")[0]


def job_states(*ids: str) -> dict[str, str]:
    """The states of those of these jobs that have not ended, with one question to each cluster and a short timeout.
    Raises `SlurmUnreachableError`."""
    states: dict[str, str] = {}
    for cluster in sorted({split_id(job)[1] for job in ids}):
        numbers = [split_id(job)[0] for job in ids if split_id(job)[1] == cluster]
        code, output = run_slurm("squeue", "--noheader", "--jobs", ",".join(numbers), "--format", "%i|%T",
                                 cluster=cluster, timeout=SHORT_TIMEOUT)
        if code != 0 and NO_JOB not in output:
            raise SlurmUnreachableError(output)
        found = (line.partition("|") for line in output.splitlines())
        states |= {join_id(number, cluster): state for number, _, state in found}
    return states


def array_tasks(*arrays: str) -> set[int]:
    """The numbers of the runs that job arrays have still to start, or that their tasks run. Raises
    `SlurmUnreachableError`."""
    found = set()
    for cluster in sorted({split_id(job)[1] for job in arrays}):
        numbers = [split_id(job)[0] for job in arrays if split_id(job)[1] == cluster]
        code, output = run_slurm("squeue", "--noheader", "--array", "--jobs", ",".join(numbers), "--format", "%i|%k",
                                 cluster=cluster)
        if code != 0 and NO_JOB not in output:
            raise SlurmUnreachableError(output)
        found |= {int(offset[1]) + int(task[1]) for line in output.splitlines()
                  if (task := re.match(r"\d+_(\d+)\|", line)) and (offset := re.search(r"@(\d+)", line))}
    return found


def job_fields(job: str, *, timeout: float | None = None) -> dict[str, str]:
    """A job's fields, as `scontrol show job` names them; empty without an answer. SLURM's controller still knows a job
    that has ended for MinJobAge, by default 300 s."""
    number, cluster = split_id(job)
    code, output = run_slurm("scontrol", "--oneliner", "show", "job", number, cluster=cluster, timeout=timeout)
    first = output.partition("\n")[0]  # for a job array, the requested job
    return dict(re.findall(r"(\w+)=(\S*)", first)) if code == 0 else {}


def steps(job: str, name: str) -> list[str]:
    """The ids of a job's steps with a name; none if the job has ended. Raises `SlurmUnreachableError`."""
    number, cluster = split_id(job)
    code, output = run_slurm("squeue", "--noheader", "--steps", "--jobs", number, "--format", "%i|%j", cluster=cluster)
    if code != 0 and NO_JOB not in output:
        raise SlurmUnreachableError(output)
    found = (line.partition("|") for line in output.splitlines())
    return [join_id(step.strip(), cluster) for step, _, called in found if called == name]


def cancel_jobs(*ids: str, state: str = "") -> None:
    """Cancels jobs or steps of jobs; only those in a `state`, if it is given. Raises `SlurmUnreachableError`."""
    for cluster in sorted({split_id(job)[1] for job in ids}):
        numbers = [split_id(job)[0] for job in ids if split_id(job)[1] == cluster]
        code, output = run_slurm("scancel", *([f"--state={state}"] if state else []), *numbers, cluster=cluster)
        if code != 0 and NO_JOB not in output:  # it has ended already
            raise SlurmUnreachableError(output)
