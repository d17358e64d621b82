"""Ways to run a plan: in this process, on this machine, on a cluster; `allocation.py` has the fourth, in an allocation.

Each executor makes a `Request` out of a plan, a value that prints itself, and submits it. `--dry-run` prints the same
request that `submit` would send.
"""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.importing import add_user_path
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Saved
from drumbeat.launch.backends.task import run_node
from drumbeat.launch.plan.gpu_locks import hold_gpus
from drumbeat.launch.plan.job import leaked, torchrun_command
from drumbeat.launch.slurm.grace import lead_seconds

YEAR_MINUTES = 525_600
"""submitit ends local jobs after two minutes unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What an executor is about to do. `text` is the dry run."""

    plan: JobPlan
    text: str
    parameters: dict[str, Any] = field(default_factory=dict)
    """submitit's, for a cluster."""


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
        return Request(plan=plan, text=f"drumbeat.trainers.worker.main({plan.run_dir!r}, ATTEMPT)")

    def submit(self, request: Request) -> Job:
        """Trains, and returns when the run has ended; raises what the training raises."""
        run = RunDir(Path(request.plan.run_dir))
        with hold_gpus(request.plan) as plan, environment(plan):
            attempt = run.claim_attempt()
            tell = partial(run.write_status, attempt=attempt.number)
            tell("running")
            add_user_path()
            try:
                importlib.import_module("drumbeat.trainers.worker").main(plan.run_dir, attempt.number)
                tell(Saved.require(attempt.saved).state)
            except KeyboardInterrupt:
                tell("cancelled", verdict="interrupted from the terminal")
            except BaseException as error:
                tell("failed", verdict=f"{type(error).__name__}: {error}")
                raise
        return Job(id=None)


class Local:
    """This machine, through submitit's local executor and the same node launcher as on a cluster."""

    def prepare(self, plan: JobPlan) -> Request:
        return Request(plan=plan, text=command_text(torchrun_command(plan)))

    def submit(self, request: Request) -> Job:
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
        return Job(id=job.job_id, handle=job)


class Slurm:
    """A cluster, through submitit: one task on each node, which runs the node launcher."""

    def prepare(self, plan: JobPlan, *, after: str = "") -> Request:
        """The job of a plan, or the one that goes on with the run if job `after` ends without success."""
        from submitit.slurm.slurm import _make_sbatch_string  # pure, and works where there is no SLURM

        folder = RunDir(Path(plan.run_dir)).submitit
        parameters = sbatch_parameters(plan, after)
        text = _make_sbatch_string(command=node_command(plan), folder=folder, **parameters)
        return Request(plan=plan, text=text, parameters=parameters)

    def submit(self, request: Request) -> Job:
        """Queues the job. Raises `LaunchError` where there is no SLURM, or with what sbatch answered."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from drumbeat.launch.slurm.sbatch_errors import refusal
        from drumbeat.launch.slurm.submission import SureExecutor

        plan = request.plan
        require_slurm()
        try:
            with environment(plan), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # submitit's advice on combinations that we choose on purpose
                executor = SureExecutor(folder=RunDir(Path(plan.run_dir)).submitit, python=_python(plan))
                executor.update_parameters(**request.parameters)
                job = executor.submit(run_node, plan.run_dir)
        except (FailedJobError, FailedSubmissionError) as error:
            said = [line for line in str(error).splitlines() if line.strip()]
            raise LaunchError(refusal("\n".join(said[-3:]), plan.site, "sbatch")) from None
        return Job(id=job.job_id, handle=job)


def require_slurm() -> None:
    """Raises `LaunchError` where SLURM's programs are not on the PATH."""
    absent = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
    if absent:
        raise LaunchError(Fault(what="there is no SLURM here", where="--slurm",
                                given=f"no {' and no '.join(absent)} on PATH",
                                remedy="Log in to the cluster's login node, or leave --slurm out to run on this "
                                       "machine. --dry-run shows the script without SLURM."))


LAUNCHERS = """\
srun() {  # a node's launcher that is killed takes those of the other nodes with it; then all start again
  local code again
  for again in "" {1..20}; do
    command srun ${again:+--immediate=60} "$@"; code=$?
    if [ $code -le 128 ]; then break; fi
  done
%sreturn $code
}"""
"""A function in the job's script around the command of that name. How often is decided by the launchers, from how far
the run gets; twenty times is for those that die before they can. Where SLURM has taken a node away, srun would wait
for it for ever, if not told to start at once."""
REQUEUE = """\
  if [ $code = 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi  # for launchers in a container
  """


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


def setup_lines(plan: JobPlan, cpus: int, after: str = "  ") -> list[str]:
    """The script's lines ahead of its command; `after` is what it does when the launchers are through."""
    site = plan.site
    return [*site.setup, *(f"export {name}={shlex.quote(value)}" for name, value in site.environment.items()),
            f"export SRUN_CPUS_PER_TASK={cpus}",
            *(f"export {name}={shlex.quote(plan.environment[name])}" for name in ("PYTHONPATH", "PYTHONSAFEPATH")),
            LAUNCHERS % after]


def node_command(plan: JobPlan) -> str:
    """The shell words that start a node's launcher: in a container, where the site has one."""
    folder = RunDir(Path(plan.run_dir)).submitit
    return f"{_python(plan)} -u -m submitit.core._submit {shlex.quote(str(folder))}"


def _python(plan: JobPlan) -> str:
    return f"{plan.site.prefix} {shlex.quote(plan.python)}".strip()


def _megabytes(gigabytes: float) -> str:
    return f"{int(gigabytes * 1024)}M"


def command_text(command: list[str]) -> str:
    """A command over several lines, ready to paste into a shell."""
    lines = [shlex.join(command[:3])]
    for word in map(shlex.quote, command[3:]):
        if word.startswith("-"):
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return " \\\n  ".join(lines)


@contextmanager
def environment(plan: JobPlan) -> Iterator[None]:
    """This process's environment as the run's processes should inherit it: nothing leaked, everything planned."""
    before = dict(os.environ)
    for name in leaked(before, plan.where):
        del os.environ[name]
    os.environ.update(plan.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def standard_files(log: Path) -> Iterator[None]:
    """Programs started inside read nothing and write to `log`, so a pipe this process writes to can be closed."""
    sys.stdout.flush()
    before = [os.dup(number) for number in (0, 1, 2)]
    nothing, file = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for opened, number in ((nothing, 0), (file, 1), (file, 2)):
            os.dup2(opened, number)
        yield
    finally:
        for kept, number in zip(before, (0, 1, 2), strict=True):
            os.dup2(kept, number)
        for opened in (*before, nothing, file):
            os.close(opened)
