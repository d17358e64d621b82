"""--here: a run in the SLURM allocation of this shell, from salloc or in the user's own sbatch script.

The node launchers are a step of that job. A bash on this machine runs the same script as a job of the run's own; it
restarts the step if a launcher is killed. The allocation belongs to the user: the run never ends or requeues it, and
stops before its time limit.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Allocation, JobPlan
from drumbeat.configs.run.records import Job
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config
from drumbeat.launch.attempts.logs import end_of
from drumbeat.launch.backends.cluster_checks import check_shared, known_to_nodes
from drumbeat.launch.backends.contract import Backend, Request, Rows, Submitted, UnrecordedEnd
from drumbeat.launch.backends.environment import environment
from drumbeat.launch.backends.local import recent_heartbeat_elsewhere
from drumbeat.launch.backends.processes import IN_ALLOCATION, end_processes, processes_of
from drumbeat.launch.backends.queued_jobs import queue_evidence
from drumbeat.launch.backends.script import JOB_VARIABLES, check_values, node_command, setup_lines
from drumbeat.launch.backends.slurm import END_SECONDS, cancel_error
from drumbeat.launch.backends.task import run_node
from drumbeat.launch.plan.job import Machine, nodes_section
from drumbeat.launch.slurm.client import SlurmUnreachableError, cancel_jobs, join_id, run_slurm, steps
from drumbeat.launch.slurm.ended import job_end
from drumbeat.launch.slurm.job import START

DETAILS = re.compile(r"Nodes=\S+ CPU_IDs=([0-9]{1,9}(?:[-,][0-9]{1,9})*) Mem=\d+ GRES=(\S*)")
"""A line of `scontrol --details show job` for nodes with equal resources."""
GPUS = re.compile(r"(?:^|,)gpu:(?:[^,:(]+:)?(\d+)")
"""In `gpu:a100:4(IDX:0-3)`."""
STEPS_END = 0xFFFFFFF0
"""Ordinary step ids are smaller; those of batch scripts and of salloc's shell, which hold no resources, are not."""


def find_allocation(environ: Mapping[str, str]) -> Allocation:
    """The allocation of a shell with this environment, as SLURM describes it. Raises `LaunchError`."""
    if not (job := environ.get("SLURM_JOB_ID")):
        raise LaunchError(Fault(
            what="this shell is not in a SLURM allocation", where="--here", given="SLURM_JOB_ID is not set",
            remedy="Allocate one and run this command in it: salloc --nodes=2 --gres=gpu:8 --cpus-per-task=64 "
                   "--time=4:00:00\nOr submit the run to the queue: --slurm instead of --here."))
    cluster = environ.get("SLURM_CLUSTER_NAME", "") if "SLURM_CLUSTERS" in environ else ""
    code, output = run_slurm("scontrol", "--details", "--oneliner", "show", "job", job, cluster=cluster)
    output = output.partition("\n")[0]  # for a job array, the requested job
    state = re.search(r"JobState=(\S+)", output) if code == 0 else None
    restarts = re.search(r"Restarts=(\d+)", output)
    nodes, given = re.search(r"NumNodes=(\d+)", output), DETAILS.findall(output)
    if not state or state[1] != "RUNNING" or not nodes or not given:
        raise LaunchError(Fault(
            what=f"the allocation of SLURM job {job} cannot be used", where="--here",
            given=f"the job is {state[1]}" if state and state[1] != "RUNNING" else output[:200],
            remedy="Allocate another and run this command in it: salloc\n"
                   "Or submit the run to the queue: --slurm instead of --here."))
    step = environ.get("SLURM_STEP_ID", "")
    return Allocation(job_id=job, nodes=int(nodes[1]), cpus_per_node=min(_count(ids) for ids, _ in given),
                gpus_per_node=min(sum(map(int, GPUS.findall(gres))) for _, gres in given),
                in_step=step.isdecimal() and int(step) < STEPS_END, restarts=int(restarts[1]) if restarts else 0,
                cluster=cluster)


def node_resources(machine: Machine, allocation: Allocation) -> Machine:
    """The resources of each node of the allocation."""
    return dataclasses.replace(machine, cpus=allocation.cpus_per_node, nodes=allocation.nodes, allocation=allocation,
                               gpus=tuple(map(str, range(allocation.gpus_per_node))))


def _count(ids: str) -> int:
    """The number of ids in a list like `0-3,8`."""
    ends = (part.partition("-") for part in ids.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


@dataclass(frozen=True)
class Controller:
    """The bash process that runs the script."""

    process: subprocess.Popen[bytes]

    def done(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None


class InAllocation(Backend):
    """A step of the job of this shell's allocation, with one task on each node that runs the node launcher."""

    flag = "--here"
    on_slurm = True
    module = "drumbeat.launch.backends.allocation"
    job_variables = JOB_VARIABLES
    id_description = "your SLURM allocation; the run is a step of it"
    on_terminal_close = "the run ends with the allocation"

    def resources(self, machine: Machine) -> Machine:
        return node_resources(machine, find_allocation(os.environ))

    def location(self, plan: JobPlan) -> str:
        assert plan.allocation
        return f"in the allocation of SLURM job {plan.allocation.job_id}"

    def check_startable(self, plan: JobPlan) -> None:
        """Nothing to check: `resources` has found the allocation."""

    def preflight(self, request: Request) -> str:
        check_shared(request.plan)
        return ""

    def unchecked(self, plan: JobPlan, config: Config) -> list[str]:
        return known_to_nodes(plan, config)

    def notes(self, request: Request) -> list[str]:
        return [text] if (text := note(request.plan)) else []

    def request(self, plan: JobPlan) -> Request:
        """The script. It passes all options to srun, which inherits nothing from the shell's own job. Raises
        `LaunchError` for a value that the script cannot contain."""
        from submitit.slurm.slurm import _make_sbatch_string

        check_values(plan)
        folder, cpus = RunDir(Path(plan.run_dir)).submitit, cores(plan)
        text = _make_sbatch_string(command=node_command(plan), folder=folder, setup=setup_lines(plan, cpus),
                                   srun_args=srun_arguments(plan, cpus))
        lines = [line for line in text.splitlines() if not line.startswith(("#SBATCH", "# Parameters"))]
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"
        return Request(plan=plan, text=text, sections=(
            nodes_section(plan), ("script of the bash that starts the step", text)))

    def submit(self, request: Request) -> Submitted:
        """Starts the step and returns. It receives no signals from this terminal, and ends with the allocation."""
        from submitit.core.utils import DelayedSubmission, JobPaths

        plan = request.plan
        assert plan.allocation
        folder = RunDir(Path(plan.run_dir)).submitit
        folder.mkdir(parents=True, exist_ok=True)
        paths = JobPaths(folder, plan.allocation.job_id)
        write_text(paths.submission_file, request.text)
        DelayedSubmission(run_node, plan.run_dir).dump(paths.submitted_pickle)
        with environment(plan, JOB_VARIABLES), open(folder / "controller.log", "ab") as log:
            process = subprocess.Popen(
                ["bash", str(paths.submission_file), IN_ALLOCATION.decode(), plan.run_dir],
                env=os.environ | {START: secrets.token_hex(4), "SLURM_RESTART_COUNT": str(plan.allocation.restarts)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        return Submitted(id=join_id(plan.allocation.job_id, plan.allocation.cluster), handle=Controller(process))

    def other_evidence(self, view: View, job: Job) -> str:
        """The run's step in SLURM's queue. SLURM does not list a step that waits for resources, and processes on other
        machines cannot be seen."""
        if not job.id:
            return recent_heartbeat_elsewhere(view, job)
        try:
            if found := steps(job.id, view.run.id):
                return f"step {found[0]}"
            waits = view.state == "pending" and not job.is_here and queue_evidence(job.id)
            return f"it may be waiting for resources in SLURM job {job.id}, started on {job.host}" if waits else ""
        except SlurmUnreachableError as error:
            return f"in SLURM job {job.id}, state unknown: {error}"

    def end(self, view: View) -> list[str]:
        """Kills the step and the bash that would restart it, which may be on another machine. The job stays."""
        try:
            return cancel_steps(view)
        except SlurmUnreachableError as error:
            end_processes(partial(processes_of, view))
            return [f"of SLURM job {view.job.id if view.job else None}, state unknown ({error}),"]

    def cancel(self, view: View) -> str:
        try:
            left = cancel_steps(view)
        except SlurmUnreachableError as error:
            raise cancel_error(view.run, error) from None
        return (f"{view.run.id} ended{', or about to: ' + ', '.join(left) if left else ''}; "
                f"SLURM job {view.job.id if view.job else None} stays")

    def label(self, view: View) -> str:
        return f"job {view.job.id if view.job else None}"

    def explain(self, view: View) -> Rows:
        """Whether the step waits for resources that other steps of the job use."""
        job = view.job.id if view.job else None
        if view.state != "pending" or not job or not (evidence := self.running_evidence(view)):
            return []
        return [("running", evidence), ("why", f"it is starting, or waiting for resources in SLURM job {job}"),
                ("fix", f"Try again later; other steps in it: squeue --steps --jobs {job}")]

    def unrecorded_end(self, view: View) -> UnrecordedEnd:
        """The end of the allocation, or the error of srun if it did not start the step, or not again."""
        errors = [line for line in end_of(view.run.submitit / "controller.log").splitlines() if "error" in line]
        error = errors[-1].removeprefix("srun: ") if errors else ""
        if view.state == "pending":
            return UnrecordedEnd(reason=f"not started: {error}" if error else "")
        job = view.job.id if view.job else None
        if end := job_end(job) if job else None:
            return UnrecordedEnd(reason=f"its allocation, SLURM job {job}, ended: {end.message}")
        return UnrecordedEnd(reason=f"its launchers ended in SLURM job {job}: {error}" if error else "")


def cancel_steps(view: View) -> list[str]:
    """Kills a run in an allocation. Returns the steps that have not ended in time. Raises `SlurmUnreachableError`."""
    run, job = view.run, view.job
    assert job
    found = steps(str(job.id), run.id)
    dataclasses.replace(job, cancelled=True).write(run.job)
    end_processes(partial(processes_of, view))
    if found:
        cancel_jobs(*found)
    until = time.monotonic() + END_SECONDS
    while (left := steps(str(job.id), run.id)) and time.monotonic() < until:
        time.sleep(0.5)
    return left


def cores(plan: JobPlan) -> int:
    """The cores that the step requests on each node: what its ranks need, but no more than the node has."""
    assert plan.allocation
    return min(plan.topology.ranks_per_node * plan.topology.cpus_per_rank, plan.allocation.cpus_per_node)


def note(plan: JobPlan) -> str:
    """A note if ranks have to share cores; otherwise ''."""
    ranks, available = plan.topology.ranks_per_node, cores(plan)
    needed = ranks * plan.topology.cpus_per_rank
    return "" if needed <= available else (
        f"{ranks} ranks share {available} core{'s' * (available > 1)} on each node; salloc --cpus-per-task={needed} "
        "gives each its own")


def srun_arguments(plan: JobPlan, cpus: int) -> list[str]:
    """The arguments of a step that is named after the run and requests only what it needs, so that other steps fit
    beside it; it waits until it fits. Inside another step it overlaps with that one, or it would wait for its end."""
    topology, allocation = plan.topology, plan.allocation
    assert allocation
    return [f"--jobid={allocation.job_id}", f"--job-name={Path(plan.run_dir).name}", f"--chdir={plan.folder}",
            "--open-mode=append", f"--nodes={topology.nodes}", f"--ntasks={topology.nodes}", "--ntasks-per-node=1",
            "--exact", *(["--overlap"] if allocation.in_step else []), "--mem=0",
            *([f"--gres=gpu:{topology.ranks_per_node}"]
              if topology.device == "cuda" and allocation.gpus_per_node else []),
            "--kill-on-bad-exit=1", "--wait=60", f"--cpus-per-task={cpus}"]
