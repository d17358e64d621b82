"""Submission with confirmation: a job that SLURM accepted without answering is found, and none is submitted twice.

"Socket timed out" may mean that the job was accepted; and a site's wrapper of sbatch may print more than the job's id,
or something else. squeue lists a job's command, which is the path of its script, and its comment, which is the run's
id.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from submitit import Job, SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.slurm.slurm import SlurmJob

from drumbeat.launch.slurm.client import UNREACHABLE, join_id, run_slurm, split_id
from drumbeat.launch.slurm.job import job_id

NOT_SENT = re.compile(r"connect failure|standby mode", re.IGNORECASE)
"""Matches SLURM's errors if the controller was never reached."""

ANSWER = re.compile(r"^(?:Submitted batch job )?(\d+)(?:(?:;| on cluster )(\S+))?$", re.MULTILINE)
"""A line of sbatch's output with the job's id: with --parsable, and as a wrapper may print it that ignores it."""
QUEUED = ("PENDING", "CONFIGURING", "RUNNING")

TIMEOUT = 120.0
"""Seconds to wait for a controller that does not answer."""
SETTLE_SECONDS = 15.0
"""Seconds in which a controller that answers again may still be processing accepted submissions."""


class UnknownIdError(Exception):
    """sbatch accepted a job, and neither its output, which is the message, nor squeue tells its id."""


class ConfirmingExecutor(SlurmExecutor):  # type: ignore[misc]
    """submitit's executor for SLURM, which submits a given script and confirms whether a job was really rejected."""

    def __init__(self, *, text: str, run_id: str, folder: Path, python: str) -> None:
        super().__init__(folder=folder, python=python)
        self.text = text
        """The job's script."""
        self.run_id = run_id
        self.script = Path()
        """The file of the script."""
        self.cluster = ""
        """The cluster that took the job; '' if sbatch named none."""

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return self.text

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        self.script = submission_file_path
        return ["sbatch", "--parsable", str(submission_file_path)]

    def _num_tasks(self) -> int:
        """One on each node, of which there may be a range: "1-4"."""
        return int(str(self.parameters["nodes"]).rpartition("-")[2])

    def _get_job_id_from_submission_command(self, string: bytes | str) -> str:  # type: ignore[override]
        """The number of the job that sbatch accepted. Raises `UnknownIdError`."""
        output = string if isinstance(string, str) else string.decode(errors="replace")
        answers = {join_id(*answer) for answer in ANSWER.findall(output)}
        job = answers.pop() if len(answers) == 1 else (
            self._find(time.monotonic() + TIMEOUT, SETTLE_SECONDS, self.run_id))
        if not job:
            raise UnknownIdError(output)
        number, self.cluster = split_id(job)
        return number

    def _submit_command(self, command: str) -> Job[Any]:
        """Raises submitit's `FailedJobError`, with sbatch's error, if the job was not accepted; or `UnknownIdError`."""
        until = time.monotonic() + TIMEOUT
        while True:
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # submitit also prints what it raises
                    return super()._submit_command(command)
            except FailedJobError as error:
                output = str(error)
                if not UNREACHABLE.search(output):
                    raise
            print(f"{output.splitlines()[-1]}; checking whether it has the job ...", file=sys.stderr, flush=True)
            sent = not NOT_SENT.search(output)
            if found := self._find(until, SETTLE_SECONDS if sent else 0.0):
                return self._adopt(found)
            if sent or time.monotonic() > until:
                raise FailedJobError(output)
            self.script.unlink(missing_ok=True)  # the next submission has its own path

    def _find(self, until: float, settle: float, comment: str = "") -> str:
        chosen = re.search(r"^#SBATCH --clusters=(\S+)", self.text, re.MULTILINE)
        clusters = chosen[1] if chosen else os.environ.get("SBATCH_CLUSTERS", "")
        return find_job(self.script, comment, clusters.split(","), until, settle)

    def _adopt(self, found: str) -> Job[Any]:
        """The job that SLURM has accepted, as `_submit_command` would have returned it."""
        number, self.cluster = split_id(found)
        job: Job[Any] = SlurmJob(folder=self.folder, job_id=number, tasks=list(range(self._num_tasks())))
        job.paths.move_temporary_file(self.script, "submission_file", keep_as_symlink=True)
        return job


def find_job(script: Path, comment: str, clusters: list[str], until: float, settle: float) -> str:
    """The id of the job that runs a script on one of these clusters ('' is the local one); or else, unless `comment` is
    '', of one in the queue with this comment: a site's wrapper may submit a copy of the script. '' if SLURM still lists
    none `settle` seconds after it first answers, or if it does not answer until the monotonic time `until`."""
    answered = float("inf")
    while True:
        copies, answers = [], []
        for cluster in clusters:
            answer = run_slurm("squeue", "--noheader", "--states=all", "--user", str(os.getuid()),
                               "--format=%i|%T|%k|%o", cluster=cluster)
            answers.append(answer.code == 0)
            for number, state, given, path in (line.strip().split("|", 3) for line in answer.text.splitlines()
                                                 if line.count("|") >= 3):
                job = join_id(number.partition("_")[0], cluster)  # without the tasks of an array
                if path == str(script):
                    return job
                if comment and given == comment and state in QUEUED and number != job_id():
                    copies.append(job)
        now = time.monotonic()
        if all(answers):
            answered = min(answered, now)
        if now >= min(until, answered + settle):
            return copies[-1] if copies else ""
        time.sleep(1)
