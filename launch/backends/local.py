"""This machine, through submitit's local executor and the same node launcher as on a cluster."""

from __future__ import annotations

import os
import signal
import socket
from functools import partial
from pathlib import Path
from typing import ClassVar

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Job
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.contract import Backend, Request, Submitted
from drumbeat.launch.backends.environment import environment, redirected_output
from drumbeat.launch.backends.processes import can_see_processes, end_processes, processes_of_former_folder
from drumbeat.launch.backends.task import run_node
from drumbeat.launch.plan.gpu_locks import check_free
from drumbeat.launch.plan.gpus import usable_together
from drumbeat.launch.plan.job import Machine, command_text, nodes_section, torchrun_command

SILENCE_SECONDS = 120.0
"""A run on another machine whose last heartbeat is older than this counts as dead."""
YEAR_MINUTES = 525_600
"""submitit's default time limit for local jobs is two minutes."""


def recent_heartbeat_elsewhere(view: View, job: Job) -> str:
    """Evidence that a run is running whose processes cannot be seen from here, because it is on another machine, in
    another container, or of another user: a recent heartbeat. '' if there is none, or if they could be seen."""
    silence = view.seconds_since_heartbeat()
    visible = job.is_here and can_see_processes(view.run.path.stat().st_uid)
    return "" if visible or silence >= SILENCE_SECONDS else f"{place(job)}, last heartbeat {silence:.0f} s ago"


def place(job: Job) -> str:
    """Where a run was started, for messages: the host, and that it is a container if it has this host's name."""
    return f"in another container or boot of {job.host}" if job.host == socket.gethostname() else f"on {job.host}"


class OnMachine(Backend):
    """What the backends without SLURM have in common: they lock GPUs of this machine, and run as its processes."""

    name: ClassVar[str]
    """The label of the backend in `ls`."""

    def check_startable(self, plan: JobPlan) -> None:
        check_free(plan)

    def other_evidence(self, view: View, job: Job) -> str:
        if former := processes_of_former_folder(view):
            return f"process {former[0]}, which uses the run's former folder, {view.plan.run_dir}"
        return recent_heartbeat_elsewhere(view, job)

    def end(self, view: View) -> list[str]:
        """Kills the run's processes on this machine, and all of their descendants."""
        return list(map(str, end_processes(partial(self.processes, view))))

    def cancel(self, view: View) -> str:
        run, running = view.run, self.processes(view)
        if not running and (evidence := self.running_evidence(view)):
            raise RunError(Fault(what="the run's processes cannot be reached from here", where=str(run.path),
                                 given=evidence, remedy="Run this command there."))
        if left := self.end(view):
            raise RunError(Fault(what="some of its processes cannot be killed", where=str(run.path),
                                 given=", ".join(left),
                                 remedy="They are waiting for a disk or a driver that does not respond."))
        return f"{run.id} ended" if running else f"no process of {run.id} was running"

    def label(self, view: View) -> str:
        return self.name if view.job is None or view.job.is_here or view.ended else view.job.host


class Local(OnMachine):
    """This machine."""

    flag = ""
    name = "local"

    def resources(self, machine: Machine) -> Machine:
        return machine

    def location(self, plan: JobPlan) -> str:
        return "on this machine"

    def request(self, plan: JobPlan) -> Request:
        return Request(plan=plan, text=command_text(torchrun_command(plan)), sections=(nodes_section(plan),))

    def submit(self, request: Request) -> Submitted:
        """Starts the job and returns. The job outlives this terminal: it receives none of its signals and holds none of
        its files. `drumbeat stop` ends it."""
        import submitit

        from drumbeat.launch.attempts.processes import ignoring_signals

        plan = request.plan
        folder = RunDir(Path(plan.run_dir)).submitit
        executor = submitit.LocalExecutor(folder=folder)
        executor.update_parameters(timeout_min=YEAR_MINUTES)
        unaffected = ignoring_signals(signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
        with environment(plan), unaffected, redirected_output(folder / "controller.log"):
            job = executor.submit(run_node, plan.run_dir)
        return Submitted(id=job.job_id, handle=job)

    def notes(self, request: Request) -> list[str]:
        plan, found = request.plan, super().notes(request)
        gpus = len(usable_together(Machine.here().gpus or ()))
        if plan.topology.device == "cuda" and plan.topology.ranks_per_node > gpus:
            found.append("This machine has fewer GPUs: the run would not start here")
        if int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) > 1:
            found.append(f"This shell is in SLURM job {os.environ.get('SLURM_JOB_ID')}: --here would use all of its "
                         f"{os.environ['SLURM_JOB_NUM_NODES']} nodes")
        return found
