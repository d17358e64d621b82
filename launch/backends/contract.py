"""The interface of a backend, which is one way to run a plan. All differences between backends are behind it.

A run's records hold the name of its backend, and `backend_of(name)` returns it (`backends/backend.py`). A backend turns
a plan into a `Request`, a value that can be printed, and submits it: `--dry-run` prints what `submit` would send.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Job, State
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.plan.job import Machine

Rows = list[tuple[str, str]]
"""Labels and values, as commands print them."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a backend sends to start a run."""

    plan: JobPlan
    text: str
    """The text that is sent."""
    sections: tuple[tuple[str, str], ...] = ()
    """What a dry run prints: titles and texts."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """The parameters of submitit, for a cluster."""
    notes: tuple[str, ...] = ()
    """Notes on it for the user: sentences without a full stop."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A started job."""

    id: str | None
    """SLURM's job id, or the process id of submitit's local controller; None for this process."""
    handle: Any = None
    """The job object of submitit."""
    pid: int | None = None
    """The id of this process, if the run is trained in it."""
    work: Callable[[], None] | None = None
    """Trains in this process, once everything is recorded; None if other processes train."""

    def running(self) -> bool:
        """Whether the job is still running."""
        return self.handle is not None and not self.handle.done()


@dataclass(frozen=True)
class Evidence:
    """What shows that a run has not ended."""

    text: str = ""
    """For messages; '' if nothing shows it."""
    suspended: bool = False
    """Whether SLURM has suspended its job."""


@dataclass(frozen=True, kw_only=True)
class UnrecordedEnd:
    """How a run ended that has no processes left and could not record it."""

    state: State = "failed"
    reason: str = ""
    """'' if nothing is known."""
    bad_nodes: dict[str, str] = field(default_factory=dict)
    """The nodes on which it failed for a reason of the machine, each with the reason."""
    time: float = field(default_factory=time.time)
    """About when it ended, in seconds since 1970; now if that is unknown."""


class Backend(ABC):
    """One way to run a plan."""

    flag: ClassVar[str]
    """The flag that selects it on the command line; '' for the default backend."""
    on_slurm: ClassVar[bool] = False
    """Whether SLURM runs it: it may wait in a queue, and its id is that of a SLURM job."""
    attached: ClassVar[bool] = True
    """Whether the command that starts it stays attached by default."""
    module: ClassVar[str] = "drumbeat.launch.backends.task"
    """The module that a copy of the code must contain for this backend; '' if it runs the original files."""
    job_variables: ClassVar[frozenset[str]] = frozenset()
    """Variables that a job gets where it starts, and must not inherit from this shell."""
    id_description: ClassVar[str] = "process on this machine"
    """What the id of a job is, for `status`."""
    on_terminal_close: ClassVar[str] = "closing this terminal leaves the run running"
    """What happens to an attached run when its terminal is closed."""

    @abstractmethod
    def resources(self, machine: Machine) -> Machine:
        """The resources that a plan may use, given this machine. Raises `LaunchError` if they cannot be determined."""

    @abstractmethod
    def location(self, plan: JobPlan) -> str:
        """Where the processes run; follows their number in a sentence."""

    @abstractmethod
    def check_startable(self, plan: JobPlan) -> None:
        """Raises `LaunchError` if the plan cannot be started at all. Always called first."""

    @abstractmethod
    def request(self, plan: JobPlan) -> Request:
        """The request for a plan."""

    @abstractmethod
    def submit(self, request: Request) -> Submitted:
        """Starts the run and returns. Raises `LaunchError` if it is rejected."""

    def running_evidence(self, view: View) -> str:
        """What shows that a run is still running, for messages; '' if nothing does."""
        if running := self.processes(view):
            return f"process {running[0]}"
        return "" if view.ended or view.job is None else self.other_evidence(view, view.job)

    def processes(self, view: View) -> list[int]:
        """The run's processes on this machine."""
        return processes_of(view)

    @abstractmethod
    def other_evidence(self, view: View, job: Job) -> str:
        """The same for a run that has not ended and has no processes on this machine."""

    @abstractmethod
    def end(self, view: View) -> list[str]:
        """Kills a run. Returns the processes or jobs that have not ended in time."""

    @abstractmethod
    def cancel(self, view: View) -> str:
        """Kills a run. Returns a message. Raises `RunError` if it cannot be reached."""

    @abstractmethod
    def label(self, view: View) -> str:
        """Where a run is, for the table of `ls`."""

    def preflight(self, request: Request) -> str:
        """Checks for faults that would otherwise appear only in the job. Returns when the job is expected to start, as
        text; '' if that is unknown. Raises `LaunchError`."""
        return ""

    def unchecked(self, plan: JobPlan, config: Config) -> list[str]:
        """Notes on what no check can know here, once all have passed: sentences without a full stop."""
        return []

    def notes(self, request: Request) -> list[str]:
        """Notes for the user who starts the run: sentences without a full stop."""
        return list(request.notes)

    def layout(self, plan: JobPlan) -> dict[str, Any]:
        """The config values, by dotted key, that give a run as many ranks and threads as a plan, because its results
        depend on both."""
        topology = plan.topology
        return {"launch.nodes": topology.nodes,
                "launch.gpus": topology.ranks_per_node if topology.device == "cuda" else 0,
                "launch.procs": topology.ranks_per_node,
                **({} if topology.threads_per_rank else {"launch.cpus_per_rank": topology.cpus_per_rank})}

    def explain(self, view: View) -> Rows:
        """Why a run that has not ended is not running, for `why`; empty if the backend knows no more than the
        folder."""
        return []

    def evidence_of(self, views: Sequence[View]) -> list[Evidence]:
        """`running_evidence` of several runs."""
        return [Evidence(self.running_evidence(view)) for view in views]

    def unrecorded_end(self, view: View) -> UnrecordedEnd:
        """How a run ended that has no processes left and could not record it. SLURM forgets it soon, so `status`
        records it for runs on SLURM."""
        return UnrecordedEnd()

    def job_log(self, view: View) -> list[Path]:
        """The log files of the job itself, if no attempt has been started in it."""
        return []
