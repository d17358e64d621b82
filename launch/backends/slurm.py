"""A cluster, through submitit: one task on each node, which runs the node launcher."""

from __future__ import annotations

import dataclasses
import re
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import Fault, LaunchError, RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Job
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.cluster_checks import check_cluster, check_shared
from drumbeat.launch.backends.contract import Backend, Request, Rows, Submitted
from drumbeat.launch.backends.environment import environment
from drumbeat.launch.backends.local import heard_elsewhere
from drumbeat.launch.backends.script import GIVEN, REQUEUE, node_command, python_words, setup_lines
from drumbeat.launch.backends.task import run_node
from drumbeat.launch.backends.typed import command
from drumbeat.launch.plan.job import Machine, nodes_section
from drumbeat.launch.slurm.client import QueuedJob, SilentError, cancel_jobs, job_state, queued
from drumbeat.launch.slurm.grace import lead_seconds
from drumbeat.launch.slurm.reasons import reason_in_words

END_SECONDS = 90.0
"""SLURM gives a job that is cancelled its KillWait, 30 s unless the site says otherwise, and then kills it."""


class Slurm(Backend):
    """A job of the run's own."""

    flag = "--slurm"
    on_slurm = True
    attached = False
    given = GIVEN
    id_words = "SLURM"

    def resources(self, machine: Machine) -> Machine:
        """What a node of the cluster has is not known here."""
        return dataclasses.replace(machine, cpus=None, gpus=None, nodes=None)

    def place(self, plan: JobPlan) -> str:
        return "through SLURM"

    def require(self, plan: JobPlan) -> None:
        require_slurm()

    def preflight(self, request: Request) -> str:
        check_shared(request.plan)
        return check_cluster(request)

    def request(self, plan: JobPlan, *, after: str = "") -> Request:
        """The job of a plan, or the one that goes on with the run if job `after` ends without success."""
        from submitit.slurm.slurm import _make_sbatch_string  # pure, and works where there is no SLURM

        folder = RunDir(Path(plan.run_dir)).submitit
        parameters = sbatch_parameters(plan, after)
        text = _make_sbatch_string(command=node_command(plan), folder=folder, **parameters)
        return Request(plan=plan, text=text, parameters=parameters,
                       sections=(nodes_section(plan), ("sbatch script", text)))

    def submit(self, request: Request) -> Submitted:
        """Queues the job. Raises `LaunchError` where there is no SLURM, or with what sbatch answered."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from drumbeat.launch.slurm.sbatch_errors import refusal
        from drumbeat.launch.slurm.submission import SureExecutor

        plan = request.plan
        require_slurm()
        try:
            with environment(plan, GIVEN), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # submitit's advice on combinations that we choose on purpose
                executor = SureExecutor(folder=RunDir(Path(plan.run_dir)).submitit, python=python_words(plan))
                executor.update_parameters(**request.parameters)
                job = executor.submit(run_node, plan.run_dir)
        except (FailedJobError, FailedSubmissionError) as error:
            said = [line for line in str(error).splitlines() if line.strip()]
            raise LaunchError(refusal("\n".join(said[-3:]), plan.site, "sbatch")) from None
        return Submitted(id=job.job_id, handle=job)

    def sign(self, view: View, job: Job) -> str:
        return in_queue(job.id) if job.id else heard_elsewhere(view, job)

    def end(self, view: View) -> list[str]:
        """Cancels the run's jobs, the one that waits to follow included, and waits until SLURM has ended them. Raises
        `SilentError`."""
        jobs = jobs_of(view)
        if jobs:
            cancel_jobs(*jobs)
        until = time.monotonic() + END_SECONDS
        while (left := jobs_of(view)) and time.monotonic() < until:
            time.sleep(0.5)
        return left

    def cancel(self, view: View) -> str:
        try:
            jobs = jobs_of(view)
            left = self.end(view) if jobs else []
        except SilentError as silence:
            raise cannot_cancel(view.run, silence) from None
        return (f"SLURM job{'s' * (len(jobs) > 1)} {', '.join(jobs)} "
                f"{'cancelled, and still ending' if left else 'cancelled'}" if jobs
                else f"SLURM knows of no job of {view.run.id} any more")

    def label(self, view: View) -> str:
        return f"job {view.job.id if view.job else None}"

    def explain(self, view: View) -> Rows:
        """What SLURM says of the run's jobs."""
        run, job = view.run, view.job
        if job is None or not job.id:
            return []
        try:
            jobs = queued(run.id, *ids_of(view))
        except SilentError as silence:
            return [("job", job.id), ("why", f"SLURM does not answer: {silence}"),
                    ("fix", f"Look again later. The folder tells what the run itself knows: {command('status', run)}")]
        if not jobs and view.state == "running":  # and it was heard of so lately that `status` has not asked SLURM
            return [("job", f"{job.id}, of which SLURM knows nothing any more"),
                    ("why", "its job has ended, and the run gave a sign of life "
                            f"{view.seconds_since_heartbeat():.0f} s ago: it may still write down how it ended, or it "
                            "was killed, or its node failed"),
                    ("fix", f"Look again in two minutes; or go on with the run: {command('resume', run)}")]
        if not jobs:
            return [("job", f"{job.id}, of which SLURM knows nothing any more"),
                    ("why", "it was cancelled, or ended before the run could tell"),
                    ("fix", f"Go on with the run: {command('resume', run)}")]
        rows: Rows = []
        for one in jobs:
            rows.append(("job", f"{one.id}, {one.state.lower()} in partition {one.partition}"))
            if one.state == "PENDING":
                rows += _pending(run, one)
        if not any(one.state == "PENDING" for one in jobs):
            rows.append(("why", f"nothing keeps it: {command('logs -f', run)}"))
        return rows


def ids_of(view: View) -> list[str]:
    """SLURM's ids of the run's job and of the one that is to follow it."""
    return [one for one in (view.job.id, view.job.next_job) if one] if view.job else []


def jobs_of(view: View) -> list[str]:
    """The run's jobs that SLURM has not done with. Raises `SilentError`."""
    return [job.id for job in queued(view.run.id, *ids_of(view))]


def in_queue(job: str) -> str:
    """What SLURM says of a job that is not over, in words. That it does not answer is no sign that the job is over."""
    try:
        state = job_state(job)
    except SilentError as silence:
        return f"SLURM job {job}, which cannot be asked about: {silence}"
    return f"SLURM job {job} is {state.lower()}" if state else ""


def cannot_cancel(run: RunDir, silence: SilentError) -> RunError:
    """What to say where SLURM does not answer."""
    return RunError(Fault(what="the run cannot be cancelled: SLURM does not answer", where=str(run.path),
                          given=str(silence), remedy="Try again later; or have the run save and leave, which needs no "
                                                     f"SLURM: {command('stop', run)}"))


def _pending(run: RunDir, job: QueuedJob) -> Rows:
    words, remedy = reason_in_words(job.reason)
    for name, value in (("CANCEL", command("cancel", run)), ("RESUME", command("resume", run)), ("JOB", job.id),
                        ("PARTITION", job.partition)):
        remedy = re.sub(rf"\b{name}\b", value.replace("\\", r"\\"), remedy)
    start = [("start", f"expected at {job.start.replace('T', ' ')}")] if job.start not in ("N/A", "", "Unknown") else []
    return [("why", f"{job.reason.partition(',')[0]}: {words}"), *start, ("fix", remedy)]


def require_slurm() -> None:
    """Raises `LaunchError` where SLURM's programs are not on the PATH."""
    absent = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
    if absent:
        raise LaunchError(Fault(what="there is no SLURM here", where="--slurm",
                                given=f"no {' and no '.join(absent)} on PATH",
                                remedy="Log in to the cluster's login node, or leave --slurm out to run on this "
                                       "machine. --dry-run shows the script without SLURM."))


def sbatch_parameters(plan: JobPlan, after: str = "") -> dict[str, Any]:
    """submitit's parameters for the plan. One task per node sees all of its GPUs, and srun is told the cores again
    because since SLURM 22.05 it does not take them from sbatch. A job that is to follow another one is dropped by SLURM
    when that one ends well."""
    topology, site = plan.topology, plan.site
    cpus = topology.ranks_per_node * topology.cpus_per_rank
    more: dict[str, Any] = {"requeue": True, "chdir": plan.folder, **site.sbatch}
    given: dict[str, Any] = {
        name: value for name in ("partition", "account", "qos", "constraint")
        if (value := getattr(site, name)) is not None
    }
    if topology.device == "cuda" and site.gpu_flag != "none":
        kind = f"{site.gpu_type}:" if site.gpu_type else ""
        more |= ({"gres": f"gpu:{kind}{topology.ranks_per_node}"} if site.gpu_flag == "gres"
                 else {"gpus-per-node": f"{kind}{topology.ranks_per_node}"})
    if site.mem_gb_per_cpu is not None:
        given["mem_per_cpu"] = _megabytes(site.mem_gb_per_cpu)
    elif site.mem_gb_per_gpu is not None:  # as memory of a node, which every site takes
        given["mem"] = _megabytes(site.mem_gb_per_gpu * topology.ranks_per_node)
    elif site.mem_gb_per_node is not None:
        given["mem"] = _megabytes(site.mem_gb_per_node)
    if after:
        more |= {"dependency": f"afternotok:{after}", "kill-on-invalid-dep": "yes"}
    more = {name: value for name, value in more.items() if value not in (None, False)}
    return given | {
        "job_name": plan.name,
        "time": site.time_minutes,
        "nodes": topology.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": cpus,
        "signal_delay_s": lead_seconds(RunDir(Path(plan.run_dir)), site.signal_seconds, site.time_minutes),
        "comment": Path(plan.run_dir).name,
        "setup": setup_lines(plan, cpus, REQUEUE),
        "srun_args": ["--kill-on-bad-exit=1", "--wait=60", f"--cpus-per-task={cpus}"],
        "additional_parameters": more,
    }


def _megabytes(gigabytes: float) -> str:
    return f"{int(gigabytes * 1024)}M"
