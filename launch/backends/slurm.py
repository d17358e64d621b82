"""--slurm: a SLURM job, through submitit, with one task on each node that runs the node launcher."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import Fault, LaunchError, RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan, Topology
from drumbeat.configs.run.records import Job
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config
from drumbeat.launch.backends.cluster_checks import check_cluster, check_shared, is_rejected, known_to_nodes
from drumbeat.launch.backends.contract import Backend, Evidence, Request, Rows, Submitted, UnrecordedEnd
from drumbeat.launch.backends.environment import environment
from drumbeat.launch.backends.exclusions import Exclusions, exclusions
from drumbeat.launch.backends.job_log import log_files
from drumbeat.launch.backends.local import recent_heartbeat_elsewhere
from drumbeat.launch.backends.queued_jobs import (
    explain,
    ids_of,
    jobs_of,
    queue_evidence,
    queued_evidence,
    unrecorded_end,
)
from drumbeat.launch.backends.script import (
    JOB_VARIABLES,
    NODES,
    ONE_ON_EACH,
    REQUEUE,
    WATCH,
    WATCH_AGAIN,
    check_values,
    node_command,
    python_words,
    setup_lines,
    with_backslashes,
)
from drumbeat.launch.backends.task import run_node
from drumbeat.launch.backends.typed import command
from drumbeat.launch.plan.inherited import not_inherited
from drumbeat.launch.plan.job import Machine, nodes_section
from drumbeat.launch.plan.references import not_exported
from drumbeat.launch.slurm.client import (
    SlurmUnreachableError,
    cancel_jobs,
    job_states,
    join_id,
    split_id,
)
from drumbeat.launch.slurm.grace import grace_seconds
from drumbeat.launch.slurm.job import claimed_by

END_SECONDS = 90.0
"""Seconds to wait for a cancelled job: SLURM kills it after its KillWait, by default 30 s."""


class Slurm(Backend):
    """A SLURM job of the run's own."""

    flag = "--slurm"
    on_slurm = True
    attached = False
    job_variables = JOB_VARIABLES
    id_description = "SLURM"

    def resources(self, machine: Machine) -> Machine:
        """Unknown: the resources of the cluster's nodes."""
        return dataclasses.replace(machine, cpus=None, gpus=None, nodes=None)

    def location(self, plan: JobPlan) -> str:
        return "through SLURM"

    def check_startable(self, plan: JobPlan) -> None:
        check_slurm_installed()
        if fault := export_fault(plan):
            raise LaunchError(fault)

    def unchecked(self, plan: JobPlan, config: Config) -> list[str]:
        return known_to_nodes(plan, config)

    def notes(self, request: Request) -> list[str]:
        fault = export_fault(request.plan)
        dropped = not_inherited(os.environ, JOB_VARIABLES, request.text)
        options = [f"{name}={value}" for name, value in sorted(os.environ.items())
                   if name.startswith("SBATCH_") and name not in dropped]
        return [*request.notes, *([f"{fault.what} ({fault.given}): the run would be refused"] if fault else []),
                *([f"sbatch also reads {', '.join(options)} from this shell"] if options else [])]

    def preflight(self, request: Request) -> str:
        check_shared(request.plan)
        return check_cluster(request)

    def request(self, plan: JobPlan, *, after: str = "") -> Request:
        """The request for a plan's job, or for the one that resumes the run if job `after` fails: without the nodes
        that are remembered, unless SLURM would reject it only because of them. Raises `LaunchError` for a value that
        the script cannot contain."""
        check_values(plan)
        bad = exclusions(plan)
        request = _request(plan, after, bad)
        if bad.excluded and is_rejected(request):
            without = _request(plan, after, bad.withdrawn("SLURM would reject the job without it"))
            return request if is_rejected(without) else without
        return request

    def submit(self, request: Request) -> Submitted:
        """Queues the job. Raises `LaunchError` if SLURM is not installed, with sbatch's error, or if nothing tells the
        job's id."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from drumbeat.launch.slurm.sbatch_errors import sbatch_fault
        from drumbeat.launch.slurm.submission import ConfirmingExecutor, UnknownIdError

        plan = request.plan
        run = RunDir(Path(plan.run_dir))
        check_slurm_installed()
        try:
            with environment(plan, JOB_VARIABLES, request.text), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # submitit's warnings about options that are set on purpose
                executor = ConfirmingExecutor(text=request.text, run_id=request.parameters["comment"],
                                              folder=run.submitit, python=python_words(plan))
                executor.update_parameters(**request.parameters)
                job = executor.submit(run_node, plan.run_dir)
        except (FailedJobError, FailedSubmissionError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise LaunchError(sbatch_fault("\n".join(lines[-3:]), plan.site, "sbatch")) from None
        except UnknownIdError as error:
            raise LaunchError(no_id_fault(str(error))) from None
        return Submitted(id=join_id(job.job_id, executor.cluster), handle=job)

    def other_evidence(self, view: View, job: Job) -> str:
        if job.id:
            return next(filter(None, map(queue_evidence, ids_of(view))), "")
        return queued_evidence(view) or recent_heartbeat_elsewhere(view, job)

    def evidence_of(self, views: Sequence[View]) -> list[Evidence]:
        """With one question to SLURM for all runs, and another one only for a run whose job has ended."""
        ids = {job for view in views for job in ids_of(view)}
        try:
            states = job_states(*ids) if ids else {}
        except SlurmUnreachableError as error:
            return [Evidence(f"state unknown: {error}")] * len(views)
        return [next((Evidence(f"SLURM job {job} is {states[job].lower()}", states[job] == "SUSPENDED")
                      for job in ids_of(view) if job in states), None)
                or Evidence(self.running_evidence(view)) for view in views]

    def end(self, view: View) -> list[str]:
        """Cancels the run's jobs, including the next job, and waits until SLURM has ended them. Raises
        `SlurmUnreachableError`."""
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
        except SlurmUnreachableError as error:
            raise cancel_error(view.run, error) from None
        return (f"SLURM job{'s' * (len(jobs) > 1)} {', '.join(jobs)} "
                f"{'cancelled, and still ending' if left else 'cancelled'}" if jobs
                else f"SLURM knows no job of {view.run.id} any more")

    def label(self, view: View) -> str:
        return f"job {view.job.id if view.job else None}"

    def explain(self, view: View) -> Rows:
        return explain(view)

    def unrecorded_end(self, view: View) -> UnrecordedEnd:
        return unrecorded_end(view)

    def job_log(self, view: View) -> list[Path]:
        job = view.job.id if view.job else None
        begun = job and view.attempt and claimed_by(view.attempt, split_id(job)[0])
        return log_files(view.run, job) if job and not begun else []


def _request(plan: JobPlan, after: str, bad: Exclusions) -> Request:
    """The request for a job without the excluded nodes."""
    from submitit.slurm.slurm import _make_sbatch_string  # a pure function that works without SLURM

    folder = str(RunDir(Path(plan.run_dir)).submitit).replace("%", "%%")  # for patterns of file names
    parameters = sbatch_parameters(plan, after, bad.nodes)
    text = with_backslashes(_make_sbatch_string(command=node_command(plan), folder=folder, **parameters))
    return Request(plan=plan, text=text, parameters=parameters, notes=bad.notes,
                   sections=(nodes_section(plan), ("sbatch script", text)))


def cancel_error(run: RunDir, error: SlurmUnreachableError) -> RunError:
    """The error if SLURM does not answer."""
    return RunError(Fault(what="the run cannot be cancelled: SLURM does not answer", where=str(run.path),
                          given=str(error), remedy="Try again later; or have the run save and leave, which needs no "
                                                     f"SLURM: {command('stop', run)}"))


def no_id_fault(output: str) -> Fault:
    """The fault of a job that was accepted without an id. It cannot run: its files are named after its id."""
    return Fault(what="sbatch accepted the job, but neither it nor squeue tells the job's id", where="sbatch",
                 given="\n".join(output.splitlines()[-3:]) or "sbatch printed nothing",
                 remedy="Cancel the job if it is in the queue: squeue --me, scancel JOB\nIf sbatch is a wrapper of "
                        "your site (`type sbatch` tells), ask for one that prints what sbatch prints.")


def export_fault(plan: JobPlan) -> Fault | None:
    """The fault if the job would not inherit a variable that the config refers to."""
    export = plan.site.sbatch.get("export", os.environ.get("SBATCH_EXPORT"))
    missing = not_exported(plan.variables, export)
    return Fault(what=f"the job would not inherit {', '.join(missing)}, to which the config refers",
                 where="sbatch.export, or SBATCH_EXPORT", given=f"export: {export}",
                 remedy="Add ALL, or the names of the variables, to `export` in the profile.") if missing else None


def check_slurm_installed() -> None:
    """Raises `LaunchError` if SLURM's programs are not on the PATH."""
    missing = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
    if missing:
        raise LaunchError(Fault(what="SLURM is not installed here", where="--slurm",
                                given=f"no {' and no '.join(missing)} on PATH",
                                remedy="Log in to the cluster's login node, or remove --slurm to run on this "
                                       "machine. --dry-run shows the script without SLURM."))


def sbatch_parameters(plan: JobPlan, after: str = "", exclude: Sequence[str] = ()) -> dict[str, Any]:
    """submitit's parameters for the plan, for a job without the nodes `exclude`. One task on each node sees all of the
    node's GPUs. srun gets --cpus-per-task again, because since SLURM 22.05 it does not inherit it from sbatch; and
    --export=ALL, because it does inherit --export=NONE. SLURM drops a next job if the first one succeeds. A job with a
    range of nodes survives the failure of some, if it can be requeued when it loses its script with its first node."""
    topology, site = plan.topology, plan.site
    cpus = topology.ranks_per_node * topology.cpus_per_rank
    more: dict[str, Any] = {"requeue": True, "chdir": plan.folder,
                            **{name.replace("_", "-"): value for name, value in site.sbatch.items()}}
    options: dict[str, Any] = {
        name: value for name in ("partition", "account", "qos", "constraint")
        if (value := getattr(site, name)) is not None
    }
    if topology.device == "cuda" and site.gpu_flag != "none":
        kind = f"{site.gpu_type}:" if site.gpu_type else ""
        count = f"{kind}{topology.ranks_per_node}"
        more |= ({"gres": ",".join(filter(None, [f"gpu:{count}", more.get("gres")]))} if site.gpu_flag == "gres"
                 else {"gpus-per-node": count})
    if site.mem_gb_per_cpu is not None:
        options["mem_per_cpu"] = _megabytes(site.mem_gb_per_cpu)
    elif site.mem_gb_per_gpu is not None:  # as memory of a node, which every site takes
        options["mem"] = _megabytes(site.mem_gb_per_gpu * topology.ranks_per_node)
    elif site.mem_gb_per_node is not None:
        options["mem"] = _megabytes(site.mem_gb_per_node)
    survives = topology.min_nodes is not None and more["requeue"] is True
    if survives:
        more["no-kill"] = True
    if exclude:
        more["exclude"] = ",".join(filter(None, [more.get("exclude"), *exclude]))
    if after:
        more |= {"dependency": f"afternotok:{after}", "kill-on-invalid-dep": "yes", "clusters": None}
    more = {name: value for name, value in more.items() if value is not None and value is not False}
    return options | {
        "job_name": plan.name,
        "time": site.time_minutes,
        **_nodes(topology),
        "cpus_per_task": cpus,
        "signal_delay_s": grace_seconds(RunDir(Path(plan.run_dir)), site.signal_seconds, 60 * site.time_minutes),
        "comment": Path(plan.run_dir).name,
        "wckey": None,  # submitit's default is its own name
        "setup": [*setup_lines(plan, cpus, NODES + WATCH_AGAIN * survives, REQUEUE),
                  *([ONE_ON_EACH] if topology.min_nodes else []), *([WATCH] if survives else [])],
        "srun_args": ["--export=ALL", "--kill-on-bad-exit=1", "--wait=60", f"--cpus-per-task={cpus}"],
        "additional_parameters": more,
    }


def _nodes(topology: Topology) -> dict[str, Any]:
    """submitit's parameters for the nodes. For a range of nodes the tasks must not be counted: SLURM would
    give no more nodes than the tasks need on the smallest number."""
    return {"nodes": f"{topology.min_nodes}-{topology.nodes}"} if topology.min_nodes else {
        "nodes": topology.nodes, "ntasks_per_node": 1}


def _megabytes(gigabytes: float) -> str:
    return f"{int(gigabytes * 1024)}M"
