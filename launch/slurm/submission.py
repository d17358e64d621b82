"""Submission with confirmation: a job that SLURM accepted without answering is found, and none is submitted twice.

"Socket timed out" may mean that the job was accepted. squeue lists a job's command, which is the path of its script,
and that is unique to each submission.
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

from drumbeat.launch.slurm.client import UNREACHABLE, run_slurm

NOT_SENT = re.compile(r"connect failure|standby mode", re.IGNORECASE)
"""Matches SLURM's errors if the controller was never reached."""

TIMEOUT = 120.0
"""Seconds to wait for a controller that does not answer."""
SETTLE_SECONDS = 15.0
"""Seconds in which a controller that answers again may still be processing accepted submissions."""


class ConfirmingExecutor(SlurmExecutor):  # type: ignore[misc]
    """submitit's executor for SLURM, which confirms whether a job was really rejected."""

    script: Path

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        self.script = submission_file_path
        return super()._make_submission_command(submission_file_path)  # type: ignore[no-any-return]

    def _submit_command(self, command: str) -> Job[Any]:
        """Raises submitit's `FailedJobError`, with sbatch's error, if the job was not accepted."""
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
            if found := find_job(self.script, until, SETTLE_SECONDS if sent else 0.0):
                return self._adopt(found)
            if sent or time.monotonic() > until:
                raise FailedJobError(output)
            self.script.unlink(missing_ok=True)  # the next submission has its own path

    def _adopt(self, job_id: str) -> Job[Any]:
        """The job that SLURM has accepted, as `_submit_command` would have returned it."""
        job: Job[Any] = SlurmJob(folder=self.folder, job_id=job_id, tasks=list(range(self._num_tasks())))
        job.paths.move_temporary_file(self.script, "submission_file", keep_as_symlink=True)
        return job


def find_job(script: Path, until: float, settle: float) -> str:
    """The id of the job that runs a script. '' if SLURM still lists none `settle` seconds after it first answers, or if
    it does not answer until the monotonic time `until`."""
    answered = float("inf")
    while True:
        code, output = run_slurm("squeue", "--noheader", "--states=all", "--user", str(os.getuid()), "--format=%i|%o")
        for line in output.splitlines():
            job, _, path = line.strip().partition("|")
            if path == str(script):
                return job
        now = time.monotonic()
        if code == 0:
            answered = min(answered, now)
        if now >= min(until, answered + settle):
            return ""
        time.sleep(1)
