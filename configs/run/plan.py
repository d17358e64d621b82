"""plan.json: one job, as the node launchers and the workers need it beside the config. Written by the command that
starts the run; `launch/plan/job.py` makes it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from drumbeat.configs.run.record import Record
from drumbeat.configs.run.records import Where
from drumbeat.configs.run.versions import Versions
from drumbeat.configs.schema import Site


@dataclass(frozen=True, kw_only=True)
class Allocation(Record):
    """An allocation of SLURM's that is the user's own, from salloc or their own sbatch script, as the command saw it
    that starts a run in it. The run uses it, and neither ends it nor has it queued again. (The job that a launcher is
    part of, be it this one or a job of the run's own, is `launch.slurm.job.SlurmJob`.)"""

    job: str
    """Its id."""
    nodes: int
    cpus: int
    """Cores on each node; the fewest, where they differ."""
    gpus: int = 0
    """GPUs on each node; the fewest."""
    inside: bool = False
    """Whether the command is typed in a step of the job, which holds what it was given until it ends."""
    restarts: int = 0
    """How often SLURM has queued the job again."""


@dataclass(frozen=True, kw_only=True)
class Topology(Record):
    """Which processes make up the run."""

    nodes: int
    ranks_per_node: int
    device: Literal["cuda", "cpu"]
    cpus_per_rank: int

    @property
    def world_size(self) -> int:
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True, kw_only=True)
class JobPlan(Record):
    """One job: what the node launchers and the workers need beside the config."""

    run_dir: str
    """The run's folder, absolute."""
    name: str
    where: Where
    topology: Topology
    site: Site
    environment: dict[str, str]
    """What every process of the run finds set, whatever the submitting shell had. On this machine CUDA_VISIBLE_DEVICES
    names the GPUs to choose from, and `gpu_locks.hold_gpus` leaves those that the run holds."""
    folder: str
    """The folder the command was typed in: targets there are importable."""
    restarts: int
    deterministic: bool = True
    """Whether the config asks for the same bits each time."""
    allocation: Allocation | None = None
    """The user's allocation that it runs in (--here); None where it has none, or a job of its own."""
    python: str = sys.executable
    versions: Versions | None = None
    """The versions that the preflight check found; None without one."""
