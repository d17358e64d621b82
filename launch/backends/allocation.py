"""--here: a run in the SLURM allocation around this shell, from salloc or in the user's own sbatch script.

The nodes' launchers are a step of that job. The script that starts it, and starts it again when a launcher is killed,
is the one that a job of the run's own would have, run by a bash on this machine. The allocation stays the user's:
nothing of the run ends it or has it queued again, and the run leaves when its time is nearly up.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Allocation, JobPlan
from drumbeat.configs.run.records import Job
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.cluster_checks import check_shared
from drumbeat.launch.backends.contract import Backend, Request, Rows, Submitted
from drumbeat.launch.backends.environment import environment
from drumbeat.launch.backends.local import heard_elsewhere
from drumbeat.launch.backends.processes import IN_ALLOCATION, end_processes
from drumbeat.launch.backends.script import GIVEN, node_command, setup_lines
from drumbeat.launch.backends.slurm import END_SECONDS, cannot_cancel, in_queue
from drumbeat.launch.backends.task import run_node
from drumbeat.launch.plan.job import Machine, nodes_section
from drumbeat.launch.slurm.client import SilentError, ask, cancel_jobs, steps
from drumbeat.launch.slurm.job import START

DETAILS = re.compile(r"Nodes=\S+ CPU_IDs=(\S+) Mem=\d+ GRES=(\S*)")
"""What `scontrol --details show job` says of nodes that were given the same."""
GPUS = re.compile(r"(?:^|,)gpu:(?:[^,:(]+:)?(\d+)")
"""In `gpu:a100:4(IDX:0-3)`."""
STEPS_END = 0xFFFFFFF0
"""Numbers of steps are smaller; those of batch scripts and of salloc's shell on a node, which hold nothing, are not."""


def allocation_around(environ: Mapping[str, str]) -> Allocation:
    """The allocation that a shell with this environment is in, as SLURM describes it. Raises `LaunchError`."""
    if not (job := environ.get("SLURM_JOB_ID")):
        raise LaunchError(Fault(
            what="this shell is in no SLURM allocation", where="--here", given="SLURM_JOB_ID is not set",
            remedy="Get one, and type this in it: salloc --nodes=2 --gres=gpu:8 --cpus-per-task=64 --time=4:00:00\n"
                   "Or have the run queued: --slurm instead of --here."))
    code, said = ask("scontrol", "--details", "--oneliner", "show", "job", job)
    said = said.partition("\n")[0]  # of a job array, the job that was asked for
    state = re.search(r"JobState=(\S+)", said) if code == 0 else None
    restarts = re.search(r"Restarts=(\d+)", said)
    nodes, given = re.search(r"NumNodes=(\d+)", said), DETAILS.findall(said)
    if not state or state[1] != "RUNNING" or not nodes or not given:
        raise LaunchError(Fault(
            what=f"the allocation of SLURM job {job} cannot be used", where="--here",
            given=f"the job is {state[1]}" if state and state[1] != "RUNNING" else said[:200],
            remedy="Get another, and type this in it: salloc\nOr have the run queued: --slurm instead of --here."))
    step = environ.get("SLURM_STEP_ID", "")
    return Allocation(job_id=job, nodes=int(nodes[1]), cpus_per_node=min(_count(ids) for ids, _ in given),
                gpus_per_node=min(sum(map(int, GPUS.findall(gres))) for _, gres in given),
                in_step=step.isdigit() and int(step) < STEPS_END, restarts=int(restarts[1]) if restarts else 0)


def each_node(machine: Machine, allocation: Allocation) -> Machine:
    """Each node of the allocation, as seen from this machine, which is one of them or the login node."""
    return dataclasses.replace(machine, cpus=allocation.cpus_per_node, nodes=allocation.nodes, allocation=allocation,
                               gpus=tuple(map(str, range(allocation.gpus_per_node))))


def _count(ids: str) -> int:
    """How many numbers `0-3,8` is."""
    ends = (part.partition("-") for part in ids.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


@dataclass(frozen=True)
class Controller:
    """The bash that runs the script."""

    process: subprocess.Popen[bytes]

    def done(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None


class InAllocation(Backend):
    """The allocation around this shell: a step of its job, with one task on each node, which runs the node launcher."""

    flag = "--here"
    on_slurm = True
    module = "drumbeat.launch.backends.allocation"
    given = GIVEN
    id_words = "SLURM, and yours: the run is a step of it"
    closing = "the run ends with the allocation"

    def resources(self, machine: Machine) -> Machine:
        return each_node(machine, allocation_around(os.environ))

    def place(self, plan: JobPlan) -> str:
        assert plan.allocation
        return f"in the allocation of SLURM job {plan.allocation.job_id}"

    def require(self, plan: JobPlan) -> None:
        """Nothing: that there is an allocation is known from its resources."""

    def preflight(self, request: Request) -> str:
        check_shared(request.plan)
        return ""

    def notes(self, plan: JobPlan) -> list[str]:
        return [words] if (words := note(plan)) else []

    def request(self, plan: JobPlan) -> Request:
        """The script, which says all that srun has to know: nothing of the shell's own job reaches it."""
        from submitit.slurm.slurm import _make_sbatch_string

        folder, cpus = RunDir(Path(plan.run_dir)).submitit, cores(plan)
        text = _make_sbatch_string(command=node_command(plan), folder=folder, setup=setup_lines(plan, cpus),
                                   srun_args=srun_arguments(plan, cpus))
        lines = [line for line in text.splitlines() if not line.startswith(("#SBATCH", "# Parameters"))]
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"
        return Request(plan=plan, text=text, sections=(
            nodes_section(plan), ("script, for the bash that starts a step of the job", text)))

    def submit(self, request: Request) -> Submitted:
        """Starts the step and returns. Like a run on this machine it hears none of this terminal's signals; it ends
        with the allocation."""
        from submitit.core.utils import DelayedSubmission, JobPaths

        plan = request.plan
        assert plan.allocation
        folder = RunDir(Path(plan.run_dir)).submitit
        folder.mkdir(parents=True, exist_ok=True)
        paths = JobPaths(folder, plan.allocation.job_id)
        write_text(paths.submission_file, request.text)
        DelayedSubmission(run_node, plan.run_dir).dump(paths.submitted_pickle)
        with environment(plan, GIVEN), open(folder / "controller.log", "ab") as log:
            process = subprocess.Popen(
                ["bash", str(paths.submission_file), IN_ALLOCATION.decode(), plan.run_dir],
                env=os.environ | {START: secrets.token_hex(4), "SLURM_RESTART_COUNT": str(plan.allocation.restarts)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        return Submitted(id=plan.allocation.job_id, handle=Controller(process))

    def sign(self, view: View, job: Job) -> str:
        """What SLURM says of the run's step. It does not tell of one that waits for room, nor can a process on another
        machine be looked for."""
        if not job.id:
            return heard_elsewhere(view, job)
        try:
            if found := steps(job.id, view.run.id):
                return f"step {found[0]}"
            waits = view.state == "pending" and job.host != socket.gethostname() and in_queue(job.id)
            return f"it may wait for room in SLURM job {job.id}, started on {job.host}" if waits else ""
        except SilentError as silence:
            return f"in SLURM job {job.id}, which cannot be asked about: {silence}"

    def end(self, view: View) -> list[str]:
        """Kills the step, and what would start it again, which may be on another machine; the job stays."""
        try:
            return end_steps(view)
        except SilentError as silence:
            end_processes(view)
            return [f"of SLURM job {view.job.id if view.job else None}, which cannot be asked about ({silence}),"]

    def cancel(self, view: View) -> str:
        try:
            left = end_steps(view)
        except SilentError as silence:
            raise cannot_cancel(view.run, silence) from None
        return (f"{view.run.id} ended{', or about to: ' + ', '.join(left) if left else ''}; "
                f"SLURM job {view.job.id if view.job else None} stays")

    def label(self, view: View) -> str:
        return f"job {view.job.id if view.job else None}"

    def explain(self, view: View) -> Rows:
        """Whether the step waits for room beside others of the job."""
        job = view.job.id if view.job else None
        if view.state != "pending" or not job or not (sign := self.alive(view)):
            return []
        return [("work", sign), ("why", f"it is just starting, or waits for room in SLURM job {job}"),
                ("fix", f"Look again; what else is at work there: squeue --steps --jobs {job}")]

    def start_error(self, view: View) -> str:
        """What srun had against starting the run, in its own words."""
        log = view.run.submitit / "controller.log"
        if view.state != "pending" or not log.exists():
            return ""
        said = [line for line in log.read_text(errors="replace").splitlines() if "error" in line]
        return f"not started: {said[-1].removeprefix('srun: ')}" if said else ""


def end_steps(view: View) -> list[str]:
    """Kills a run in an allocation, and returns the steps that have not ended in time. Raises `SilentError`."""
    run, job = view.run, view.job
    assert job
    found = steps(str(job.id), run.id)
    dataclasses.replace(job, cancelled=True).write(run.job)
    end_processes(view)
    if found:
        cancel_jobs(*found)
    until = time.monotonic() + END_SECONDS
    while (left := steps(str(job.id), run.id)) and time.monotonic() < until:
        time.sleep(0.5)
    return left


def cores(plan: JobPlan) -> int:
    """Cores of each node that the step asks for: what its ranks need, and no more than there are."""
    assert plan.allocation
    return min(plan.topology.ranks_per_node * plan.topology.cpus_per_rank, plan.allocation.cpus_per_node)


def note(plan: JobPlan) -> str:
    """What to say where ranks have to share cores; '' where they need not."""
    ranks, there = plan.topology.ranks_per_node, cores(plan)
    needed = ranks * plan.topology.cpus_per_rank
    return "" if needed <= there else (
        f"{ranks} ranks share {there} core{'s' * (there > 1)} on each node; salloc --cpus-per-task={needed} gives them "
        "their own")


def srun_arguments(plan: JobPlan, cpus: int) -> list[str]:
    """A step that bears the run's id and takes no more than it needs, so that others fit in beside it; until it does,
    it waits. What a step around this shell holds is shared with it, or it would wait for that one's end."""
    topology, allocation = plan.topology, plan.allocation
    assert allocation
    return [f"--jobid={allocation.job_id}", f"--job-name={Path(plan.run_dir).name}", f"--chdir={plan.folder}",
            "--open-mode=append", f"--nodes={topology.nodes}", f"--ntasks={topology.nodes}", "--ntasks-per-node=1",
            "--exact", *(["--overlap"] if allocation.in_step else []), "--mem=0",
            *([f"--gres=gpu:{topology.ranks_per_node}"]
              if topology.device == "cuda" and allocation.gpus_per_node else []),
            "--kill-on-bad-exit=1", "--wait=60", f"--cpus-per-task={cpus}"]
