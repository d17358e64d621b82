"""What submitit runs on each node: checks that the run belongs to this job, locks the GPUs, and runs the launcher."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from pathlib import Path

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.disk import wait_for_disk
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.output import outlive_the_log
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.processes import die_with_parent
from drumbeat.configs.run.records import Status
from drumbeat.launch.attempts.beside import beside
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.node.claims import RunFailedError
from drumbeat.launch.node.handover import take_over
from drumbeat.launch.node.launcher import Launcher, wait_until
from drumbeat.launch.plan.gpu_locks import hold_gpus
from drumbeat.launch.slurm.job import SlurmJob

FILES_TIMEOUT = 60.0
"""Seconds to wait for the run's files: they may appear late on a shared file system."""


class Node:
    """What runs on each node of a run; submitit calls it through `launch/backends/task.py`."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir

    def __call__(self) -> None:
        """Runs attempts on this node until the run ends or leaves the allocation. Raises `RunFailedError`."""
        run = RunDir(Path(self.run_dir))
        for unfinished in run.submitit.glob("*.save_tmp"):
            unfinished.unlink(missing_ok=True)  # otherwise submitit refuses to write its result
        wait_until(run.plan.exists, FILES_TIMEOUT)
        plan, before = JobPlan.require(run.plan), run.newest_number()
        outlive_the_log()
        wait_for_disk(60 * plan.disk_wait_minutes)
        node, slurm_job = 0, None
        if backend_of(plan.backend).on_slurm:
            wait_until(run.job.exists, FILES_TIMEOUT)
            node = int(os.environ["SLURM_NODEID"])
            slurm_job = SlurmJob.current(is_allocation=plan.allocation is not None)
            if not take_over(run, slurm_job, first=node == 0):
                print("the run has ended, or another job runs it: nothing to do", flush=True)
                return
        else:
            die_with_parent(os.getppid(), signal.SIGTERM)  # submitit's controller
        with beside(run, plan, wait=slurm_job is not None) if node == 0 else nullcontext():
            self._run_attempts(run, plan, before, node, slurm_job)

    def _run_attempts(self, run: RunDir, plan: JobPlan, before: int, node: int, slurm_job: SlurmJob | None) -> None:
        """Runs attempts, and records an end that the launcher could not record. `before` is the number of the newest
        attempt until now. Raises `RunFailedError`."""
        try:
            with hold_gpus(plan) as plan:
                after = Launcher(run, plan, node=node, slurm_job=slurm_job).run_attempts()
        except LaunchError as error:  # another run has locked the GPUs since this one was started
            words = [error.faults[0].what, *error.faults[0].given.splitlines()]
            run.write_status("failed", attempt=before, verdict="; ".join(words))
            raise RunFailedError("; ".join(words)) from None
        except Exception as error:
            if node == 0:
                run.write_status("failed", attempt=max(before, run.newest_number()),
                                 verdict=f"the node launcher failed: {type(error).__name__}: {error}")
            raise
        if after == "give up":
            status = Status.read(run.status)
            raise RunFailedError(status.verdict if status else "")
