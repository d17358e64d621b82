"""Which backend a run has: the one place that knows all of them."""

from __future__ import annotations

from drumbeat.configs.run.records import BackendName
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.allocation import InAllocation
from drumbeat.launch.backends.contract import Backend
from drumbeat.launch.backends.debug import InProcess
from drumbeat.launch.backends.local import Local
from drumbeat.launch.backends.slurm import Slurm

BACKENDS: dict[BackendName, Backend] = {
    "debug": InProcess(), "local": Local(), "here": InAllocation(), "slurm": Slurm()}


def backend_of(name: BackendName) -> Backend:
    """The backend that a record names."""
    return BACKENDS[name]


def running_evidence(view: View) -> str:
    """What shows that a run is still running, for messages; '' if nothing does."""
    return backend_of(view.backend).running_evidence(view)
