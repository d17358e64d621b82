"""Three ways to run a plan: in this process, on this machine, on a cluster.

Each executor makes a `Request` out of a plan, a value that prints itself, and submits it. `--dry-run` prints the same
request that `submit` would send.
"""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from configs.errors import Fault, LaunchError
from configs.rundir import RunDir
from launch.node import Node
from launch.plan import JobPlan, Where, leaked, torchrun_command
from launch.processes import ignoring_signals

YEAR_MINUTES = 525_600
"""submitit ends local jobs after two minutes unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What an executor is about to do. `text` is the dry run."""

    plan: JobPlan
    text: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """What was started."""

    id: str | None
    """SLURM's job id, or the process id of submitit's local controller; None for this process."""
    handle: Any = None
    """submitit's own job."""

    def running(self) -> bool:
        """Whether the job is still there."""
        return self.handle is not None and not self.handle.done()


class Executor(Protocol):
    """A way to run a plan."""

    def prepare(self, plan: JobPlan) -> Request: ...

    def submit(self, request: Request) -> Job: ...


class InProcess:
    """--debug: this very process is the only rank, so a breakpoint stops where it stands."""

    def prepare(self, plan: JobPlan) -> Request:
        return Request(plan=plan, text=f"trainers.worker.main({plan.run_dir!r}), in this process")

    def submit(self, request: Request) -> Job:
        attempt = RunDir(Path(request.plan.run_dir)).claim_attempt()
        with environment(request.plan):
            importlib.import_module("trainers.worker").main(request.plan.run_dir, attempt.number)
        return Job(id=None)


class Local:
    """This machine, through submitit's local executor and the same node launcher as on a cluster."""

    def prepare(self, plan: JobPlan) -> Request:
        return Request(plan=plan, text=command_text(torchrun_command(plan)))

    def submit(self, request: Request) -> Job:
        """Starts the job and returns. It ignores this terminal's Ctrl-C and hang-up: `drumbeat stop` ends it."""
        import submitit

        plan = request.plan
        executor = submitit.LocalExecutor(folder=RunDir(Path(plan.run_dir)).submitit)
        gpus = list(range(plan.topology.ranks_per_node)) if plan.topology.device == "cuda" else []
        visible = [int(part) for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.isdigit()]
        executor.update_parameters(timeout_min=YEAR_MINUTES, gpus_per_node=len(gpus),
                                   visible_gpus=(visible or gpus)[:len(gpus)])
        with environment(plan), ignoring_signals(signal.SIGINT, signal.SIGHUP):
            job = executor.submit(Node(plan.run_dir))
        return Job(id=job.job_id, handle=job)


class Slurm:
    """A cluster, through submitit: one task on each node, which runs the node launcher."""

    def prepare(self, plan: JobPlan) -> Request:
        from submitit.slurm.slurm import _make_sbatch_string  # pure, and works where there is no SLURM

        folder = RunDir(Path(plan.run_dir)).submitit
        command = f"{shlex.quote(plan.python)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
        return Request(plan=plan, text=_make_sbatch_string(command=command, folder=folder, **sbatch_parameters(plan)))

    def submit(self, request: Request) -> Job:
        """Queues the job. Raises `LaunchError` where there is no SLURM, or with what sbatch answered."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        plan = request.plan
        require_slurm()
        try:
            with environment(plan), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # submitit's advice on combinations that we choose on purpose
                executor = SlurmExecutor(folder=RunDir(Path(plan.run_dir)).submitit, python=shlex.quote(plan.python))
                executor.update_parameters(**sbatch_parameters(plan))
                job = executor.submit(Node(plan.run_dir))
        except (FailedJobError, FailedSubmissionError) as error:
            said = [line for line in str(error).splitlines() if line.strip()]
            raise LaunchError(Fault(what="sbatch refused the job", given="\n".join(said[-3:]),
                                    remedy="Correct the cluster profile (--profile); --dry-run shows the script."
                                    )) from None
        return Job(id=job.job_id, handle=job)


EXECUTORS: dict[Where, type[Executor]] = {"debug": InProcess, "local": Local, "slurm": Slurm}


def require_slurm() -> None:
    """Raises `LaunchError` where SLURM's programs are not on the PATH."""
    absent = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
    if absent:
        raise LaunchError(Fault(what="there is no SLURM here", given=f"--slurm, but no {' and no '.join(absent)} on PATH",
                                remedy="Log in to the cluster's login node, or leave --slurm out to run on this "
                                       "machine. --dry-run shows the script without SLURM."))


def sbatch_parameters(plan: JobPlan) -> dict[str, Any]:
    """submitit's parameters for the plan. One task per node sees all of its GPUs, and srun is told the cores again
    because since SLURM 22.05 it does not take them from sbatch."""
    topology, site = plan.topology, plan.site
    cpus = topology.ranks_per_node * topology.cpus_per_rank
    more: dict[str, Any] = {"requeue": True, "chdir": plan.folder, **site.sbatch}
    given: dict[str, Any] = {
        name: value for name in ("partition", "account", "qos", "constraint")
        if (value := getattr(site, name)) is not None
    }
    if topology.device == "cuda":
        kind = f"{site.gpu_type}:" if site.gpu_type else ""
        more |= ({"gres": f"gpu:{kind}{topology.ranks_per_node}"} if site.gpu_flag == "gres"
                 else {"gpus-per-node": f"{kind}{topology.ranks_per_node}"})
    if site.mem_gb_per_node is not None:
        given["mem"] = f"{int(site.mem_gb_per_node * 1024)}M"
    return given | {
        "job_name": plan.name,
        "time": site.time_minutes,
        "nodes": topology.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": cpus,
        "signal_delay_s": site.signal_seconds,
        "comment": Path(plan.run_dir).name,
        "setup": [*site.setup, f"export SRUN_CPUS_PER_TASK={cpus}",
                  f"export PYTHONPATH={shlex.quote(plan.environment['PYTHONPATH'])}"],
        "srun_args": ["--kill-on-bad-exit=1", "--wait=60", f"--cpus-per-task={cpus}"],
        "additional_parameters": more,
    }


def command_text(command: list[str]) -> str:
    """A command over several lines, ready to paste into a shell."""
    lines = [shlex.join(command[:3])]
    for word in command[3:]:
        start_of_option = word.startswith("-")
        lines = [*lines, shlex.quote(word)] if start_of_option else [*lines[:-1], f"{lines[-1]} {shlex.quote(word)}"]
    return " \\\n  ".join(lines)


@contextmanager
def environment(plan: JobPlan) -> Iterator[None]:
    """This process's environment as the run's processes should inherit it: nothing leaked, everything planned."""
    before = dict(os.environ)
    for name in leaked(before):
        del os.environ[name]
    os.environ.update(plan.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

