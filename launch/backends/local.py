"""This machine, through submitit's local executor and the same node launcher as on a cluster."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import ClassVar

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Job
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.contract import Backend, Request, Submitted
from drumbeat.launch.backends.environment import environment, standard_files
from drumbeat.launch.backends.processes import end_processes, processes_of
from drumbeat.launch.backends.task import run_node
from drumbeat.launch.plan.gpu_locks import check_free
from drumbeat.launch.plan.gpus import together
from drumbeat.launch.plan.job import Machine, command_text, nodes_section, torchrun_command

SILENCE_SECONDS = 120.0
"""A run on another machine whose last heartbeat is older than this is taken for dead."""
YEAR_MINUTES = 525_600
"""submitit ends local jobs after two minutes unless told otherwise."""


def heard_elsewhere(view: View, job: Job) -> str:
    """What shows that a run on another machine still runs: that it was heard of lately; '' for one on this machine."""
    silence = view.seconds_since_heartbeat()
    away = job.host not in ("", socket.gethostname())
    return f"on {job.host}, heard of {silence:.0f} s ago" if away and silence < SILENCE_SECONDS else ""


class OnMachine(Backend):
    """What the runs without SLURM have in common: they hold GPUs of a machine, and are processes of it."""

    name: ClassVar[str]
    """What `ls` calls the place."""

    def require(self, plan: JobPlan) -> None:
        check_free(plan)

    def sign(self, view: View, job: Job) -> str:
        return heard_elsewhere(view, job)

    def processes(self, view: View) -> list[int]:
        """The run's processes on this machine."""
        return processes_of(view)

    def end(self, view: View) -> list[str]:
        """Kills what runs on this machine: all below submitit's controller as well, whatever its command line is."""
        controller = int(view.job.id) if view.job and view.job.id else 0
        parents = [controller] if controller in processes_of(view) else []  # and not another that has got its number
        return list(map(str, end_processes(view, *parents)))

    def cancel(self, view: View) -> str:
        run, job = view.run, view.job
        if job and job.host not in ("", socket.gethostname()):
            raise RunError(Fault(what=f"the run is on another machine, {job.host}", where=str(run.path),
                                 remedy="Type this there."))
        running = self.processes(view)
        if left := self.end(view):
            raise RunError(Fault(what="some of its processes do not end", where=str(run.path), given=", ".join(left),
                                 remedy="They wait for a disk or a driver that does not answer."))
        return f"{run.id} ended" if running else f"nothing of {run.id} was at work any more"

    def label(self, view: View) -> str:
        host = view.job.host if view.job else ""
        return self.name if host in ("", socket.gethostname()) or view.ended else host


class Local(OnMachine):
    """This machine."""

    flag = ""
    name = "local"

    def resources(self, machine: Machine) -> Machine:
        return machine

    def place(self, plan: JobPlan) -> str:
        return "on this machine"

    def request(self, plan: JobPlan) -> Request:
        return Request(plan=plan, text=command_text(torchrun_command(plan)), sections=(nodes_section(plan),))

    def submit(self, request: Request) -> Submitted:
        """Starts the job and returns. The job outlives this terminal: it hears none of its signals and holds none of
        its files. `drumbeat stop` ends it."""
        import submitit

        from drumbeat.launch.attempts.processes import ignoring_signals

        plan = request.plan
        folder = RunDir(Path(plan.run_dir)).submitit
        executor = submitit.LocalExecutor(folder=folder)
        executor.update_parameters(timeout_min=YEAR_MINUTES)
        deaf = ignoring_signals(signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
        with environment(plan), deaf, standard_files(folder / "controller.log"):
            job = executor.submit(run_node, plan.run_dir)
        return Submitted(id=job.job_id, handle=job)

    def notes(self, plan: JobPlan) -> list[str]:
        found = []
        if plan.topology.device == "cuda" and plan.topology.ranks_per_node > len(together(Machine.here().gpus or ())):
            found.append("This machine has fewer GPUs: the run would not start here")
        if int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) > 1:
            found.append(f"This shell is in SLURM job {os.environ.get('SLURM_JOB_ID')}: --here would use all of its "
                         f"{os.environ['SLURM_JOB_NUM_NODES']} nodes")
        return found
