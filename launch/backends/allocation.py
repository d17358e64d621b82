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
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Held, JobPlan
from drumbeat.launch.backends.executors import Job, Request, environment, node_command, setup_lines
from drumbeat.launch.backends.task import run_node
from drumbeat.launch.plan.job import Machine
from drumbeat.launch.slurm.job import START, Allocation

IN_ALLOCATION = b"drumbeat.launch.backends.allocation"
"""Given to the bash that has srun start the launchers of a run in an allocation, so that it can be told from others."""
DETAILS = re.compile(r"Nodes=\S+ CPU_IDs=(\S+) Mem=\d+ GRES=(\S*)")
"""What `scontrol --details show job` says of nodes that were given the same."""
GPUS = re.compile(r"(?:^|,)gpu:(?:[^,:(]+:)?(\d+)")
"""In `gpu:a100:4(IDX:0-3)`."""
STEPS_END = 0xFFFFFFF0
"""Numbers of steps are smaller; those of batch scripts and of salloc's shell on a node, which hold nothing, are not."""


def held(environ: Mapping[str, str]) -> Held:
    """The allocation that a shell with this environment is in, as SLURM describes it. Raises `LaunchError`."""
    if not (job := environ.get("SLURM_JOB_ID")):
        raise LaunchError(Fault(
            what="this shell is in no SLURM allocation", where="--here", given="SLURM_JOB_ID is not set",
            remedy="Get one, and type this in it: salloc --nodes=2 --gres=gpu:8 --cpus-per-task=64 --time=4:00:00\n"
                   "Or have the run queued: --slurm instead of --here."))
    code, said = Allocation(job, 0).ask("--details", "--oneliner", "show", "job", job)
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
    return Held(job=job, nodes=int(nodes[1]), cpus=min(_count(ids) for ids, _ in given),
                gpus=min(sum(map(int, GPUS.findall(gres))) for _, gres in given),
                inside=step.isdigit() and int(step) < STEPS_END, restarts=int(restarts[1]) if restarts else 0)


def each_node(allocation: Held) -> Machine:
    """Each node of the allocation."""
    return dataclasses.replace(Machine.here(), cpus=allocation.cpus, held=allocation,
                               gpus=tuple(map(str, range(allocation.gpus))))


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


class Here:
    """The allocation around this shell: a step of its job, with one task on each node, which runs the node launcher."""

    def prepare(self, plan: JobPlan) -> Request:
        """The script, which says all that srun has to know: nothing of the shell's own job reaches it."""
        from submitit.slurm.slurm import _make_sbatch_string

        folder, cpus = RunDir(Path(plan.run_dir)).submitit, cores(plan)
        text = _make_sbatch_string(command=node_command(plan), folder=folder, setup=setup_lines(plan, cpus),
                                   srun_args=srun_arguments(plan, cpus))
        lines = [line for line in text.splitlines() if not line.startswith(("#SBATCH", "# Parameters"))]
        return Request(plan=plan, text=re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n")

    def submit(self, request: Request) -> Job:
        """Starts the step and returns. Like a run on this machine it hears none of this terminal's signals; it ends
        with the allocation."""
        from submitit.core.utils import DelayedSubmission, JobPaths

        plan = request.plan
        assert plan.held
        folder = RunDir(Path(plan.run_dir)).submitit
        folder.mkdir(parents=True, exist_ok=True)
        paths = JobPaths(folder, plan.held.job)
        write_text(paths.submission_file, request.text)
        DelayedSubmission(run_node, plan.run_dir).dump(paths.submitted_pickle)
        with environment(plan), open(folder / "controller.log", "ab") as log:
            process = subprocess.Popen(
                ["bash", str(paths.submission_file), IN_ALLOCATION.decode(), plan.run_dir],
                env=os.environ | {START: secrets.token_hex(4), "SLURM_RESTART_COUNT": str(plan.held.restarts)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        return Job(id=plan.held.job, handle=Controller(process))


def cores(plan: JobPlan) -> int:
    """Cores of each node that the step asks for: what its ranks need, and no more than there are."""
    assert plan.held
    return min(plan.topology.ranks_per_node * plan.topology.cpus_per_rank, plan.held.cpus)


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
    topology, held = plan.topology, plan.held
    assert held
    return [f"--jobid={held.job}", f"--job-name={Path(plan.run_dir).name}", f"--chdir={plan.folder}",
            "--open-mode=append", f"--nodes={topology.nodes}", f"--ntasks={topology.nodes}", "--ntasks-per-node=1",
            "--exact", *(["--overlap"] if held.inside else []), "--mem=0",
            *([f"--gres=gpu:{topology.ranks_per_node}"] if topology.device == "cuda" and held.gpus else []),
            "--kill-on-bad-exit=1", "--wait=60", f"--cpus-per-task={cpus}"]
