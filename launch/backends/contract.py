"""What a backend is: one way to run a plan, and the only one to know what that means for the rest of Drumbeat.

A run's records hold the name of its backend, and `backend_of(name)` returns it (`backends/backend.py`). A backend turns
a plan into a `Request`, a value that can be printed, and submits it: `--dry-run` prints what `submit` would send.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Job
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.plan.job import Machine

Rows = list[tuple[str, str]]
"""Names and values, as commands print them."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a backend is about to do."""

    plan: JobPlan
    text: str
    """What is sent."""
    sections: tuple[tuple[str, str], ...] = ()
    """What a dry run shows of it: titles and texts."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """submitit's, for a cluster."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What was started."""

    id: str | None
    """SLURM's job id, or the process id of submitit's local controller; None for this process."""
    handle: Any = None
    """submitit's own job."""
    pid: int | None = None
    """The id of this process, if the run is trained in it."""
    work: Callable[[], None] | None = None
    """The training that this process has to do itself, once all is written down; None where others do it."""

    def running(self) -> bool:
        """Whether the job is still there."""
        return self.handle is not None and not self.handle.done()


class Backend(ABC):
    """One way to run a plan."""

    flag: ClassVar[str]
    """What chooses it on the command line; '' for the one that needs no flag."""
    on_slurm: ClassVar[bool] = False
    """Whether SLURM runs it: then it may wait in a queue, and its id is a job's."""
    attached: ClassVar[bool] = True
    """Whether the command that starts it stays to show it, unless it is told not to."""
    module: ClassVar[str] = "drumbeat.launch.backends.task"
    """What a copy of the code must have to run this way; '' where the files run as they are, without a copy."""
    given: ClassVar[frozenset[str]] = frozenset()
    """Variables that a job finds set where it starts: those of this shell must not reach it."""
    id_words: ClassVar[str] = "process on this machine"
    """What a run's id is."""
    closing: ClassVar[str] = "closing this terminal leaves the run going"
    """What becomes of an attached run without its terminal."""

    @abstractmethod
    def resources(self, machine: Machine) -> Machine:
        """What a plan may use, where the command is typed on this machine. Raises `LaunchError` where that cannot be
        found out."""

    @abstractmethod
    def place(self, plan: JobPlan) -> str:
        """Where the processes are, in words that follow their number."""

    @abstractmethod
    def require(self, plan: JobPlan) -> None:
        """Raises `LaunchError` where the plan could not be started at all: looked at first, and always."""

    @abstractmethod
    def request(self, plan: JobPlan) -> Request:
        """The request of a plan."""

    @abstractmethod
    def submit(self, request: Request) -> Submitted:
        """Starts the run and returns. Raises `LaunchError` where it is refused."""

    def alive(self, view: View) -> str:
        """What shows that a run still runs, in words; '' where nothing does."""
        if running := processes_of(view):
            return f"process {running[0]}"
        return "" if view.ended or view.job is None else self.sign(view, view.job)

    @abstractmethod
    def sign(self, view: View, job: Job) -> str:
        """The same for a run that has not ended and has no processes on this machine."""

    @abstractmethod
    def end(self, view: View) -> list[str]:
        """Ends a run now; what does not end in time, in words."""

    @abstractmethod
    def cancel(self, view: View) -> str:
        """Ends a run now; what was done, in words. Raises `RunError` where it cannot be reached."""

    @abstractmethod
    def label(self, view: View) -> str:
        """Where a run is, in one or two words, for a table."""

    def preflight(self, request: Request) -> str:
        """Looks for faults that would otherwise show only in the job. Returns when the job is expected to start, in
        words, '' where that is not known. Raises `LaunchError`."""
        return ""

    def notes(self, plan: JobPlan) -> list[str]:
        """What whoever starts the plan should know: sentences without their full stops."""
        return []

    def layout(self, plan: JobPlan) -> dict[str, Any]:
        """The config values, by dotted key, that give a run as many ranks as a plan has, each with as many threads:
        what it computes depends on both."""
        topology = plan.topology
        return {"launch.nodes": topology.nodes,
                "launch.gpus": topology.ranks_per_node if topology.device == "cuda" else 0,
                "launch.procs": topology.ranks_per_node, "launch.cpus_per_rank": topology.cpus_per_rank}

    def explain(self, view: View) -> Rows:
        """Why a run that has not ended does not run, for `why`; nothing where its folder tells as much."""
        return []

    def start_error(self, view: View) -> str:
        """Why the run was never started, in words; '' where it was, or nothing is known."""
        return ""
