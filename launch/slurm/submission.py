"""sbatch, made sure of: a job that SLURM took without saying so is found, and none is submitted twice.

"Socket timed out" may mean that the job was accepted. The script's path, which no other submission shares, tells:
squeue knows it as the job's command.
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

from drumbeat.launch.slurm.client import UNREACHABLE, ask

NOT_SENT = re.compile(r"connect failure|standby mode", re.IGNORECASE)
"""SLURM's words for a controller that was never reached."""

PATIENCE = 120.0
"""Seconds to wait for a controller that does not answer."""
LOOK = 15.0
"""Seconds for which a controller that answers again may still be working off what it had accepted."""


class SureExecutor(SlurmExecutor):  # type: ignore[misc]
    """submitit's executor for SLURM, where it matters whether a job was really refused."""

    script: Path

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        self.script = submission_file_path
        return super()._make_submission_command(submission_file_path)  # type: ignore[no-any-return]

    def _submit_command(self, command: str) -> Job[Any]:
        """Raises submitit's `FailedJobError`, with what sbatch said, for a job that is not there."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # submitit repeats there what it raises
                    return super()._submit_command(command)
            except FailedJobError as error:
                said = str(error)
                if not UNREACHABLE.search(said):
                    raise
            print(f"{said.splitlines()[-1]}; looking whether it has the job ...", file=sys.stderr, flush=True)
            sent = not NOT_SENT.search(said)
            if found := find(self.script, until, LOOK if sent else 0.0):
                return self._adopt(found)
            if sent or time.monotonic() > until:
                raise FailedJobError(said)
            self.script.unlink(missing_ok=True)  # the next one has a path of its own

    def _adopt(self, job_id: str) -> Job[Any]:
        """The job that SLURM has taken, as `_submit_command` would have returned it."""
        job: Job[Any] = SlurmJob(folder=self.folder, job_id=job_id, tasks=list(range(self._num_tasks())))
        job.paths.move_temporary_file(self.script, "submission_file", keep_as_symlink=True)
        return job


def find(script: Path, until: float, look: float) -> str:
    """The id of the job that runs a script; '' where SLURM, asked for `look` seconds once it answers, knows none, or
    does not answer until a time of the monotonic clock."""
    answered = float("inf")
    while True:
        code, said = ask("squeue", "--noheader", "--states=all", "--user", str(os.getuid()), "--format=%i|%o")
        for line in said.splitlines():
            job, _, path = line.strip().partition("|")
            if path == str(script):
                return job
        now = time.monotonic()
        if code == 0:
            answered = min(answered, now)
        if now >= min(until, answered + look):
            return ""
        time.sleep(1)
