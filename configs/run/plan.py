"""plan.json: what the node launchers and the workers need besides the config. Written by the command that starts the
run; `launch/plan/job.py` makes the plan."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import Literal

from drumbeat.configs.run.record import Record
from drumbeat.configs.run.records import BackendName
from drumbeat.configs.run.versions import Versions
from drumbeat.configs.site import Site


@dataclass(frozen=True, kw_only=True)
class Allocation(Record):
    """The user's own SLURM allocation, from salloc or an sbatch script, in which a command starts a run. The run uses
    it, and neither ends it nor requeues it. (`launch.slurm.job.SlurmJob` is the job that a launcher runs in, whether
    this one or a job of the run's own.)"""

    job_id: str
    nodes: int
    cpus_per_node: int
    """Cores on each node; the smallest number if they differ."""
    gpus_per_node: int = 0
    """GPUs on each node; the smallest number if they differ."""
    in_step: bool = False
    """Whether the command was typed in a step of the job, which keeps its resources until it ends."""
    restarts: int = 0
    """How often SLURM has requeued the job."""
    cluster: str = ""
    """The job's cluster, if the shell has another one in SLURM_CLUSTERS, which SLURM's programs would ask."""


@dataclass(frozen=True, kw_only=True)
class Topology(Record):
    """The processes of the run."""

    nodes: int
    ranks_per_node: int
    device: Literal["cuda", "cpu"]
    cpus_per_rank: int
    min_nodes: int | None = None
    """The least number of nodes with which the run trains if it cannot have all (`launch.min_nodes`); None if it waits
    for all."""
    threads_per_rank: int | None = None
    """Threads of a rank's computations, if they are not as many as its cores: with virtual ranks, because the last bits
    depend on them and the number of cores on that of ranks."""

    @property
    def threads(self) -> int:
        return self.threads_per_rank or self.cpus_per_rank

    @property
    def world_size(self) -> int:
        """The number of ranks on all nodes."""
        return self.nodes * self.ranks_per_node

    @property
    def least_nodes(self) -> int:
        """The number of nodes without which no attempt starts."""
        return self.nodes if self.min_nodes is None else self.min_nodes

    def on(self, nodes: int) -> Topology:
        """The same on another number of nodes."""
        return replace(self, nodes=nodes)


@dataclass(frozen=True, kw_only=True)
class JobPlan(Record):
    """What the node launchers and the workers of one job need besides the config."""

    run_dir: str
    """The run's folder, absolute."""
    name: str
    backend: BackendName
    topology: Topology
    site: Site
    environment: dict[str, str]
    """Environment variables of every process of the run, whatever the submitting shell had. On this machine
    CUDA_VISIBLE_DEVICES lists the GPUs to choose from, and `gpu_locks.hold_gpus` reduces it to those the run holds."""
    folder: str
    """The folder in which the command was typed: targets there are importable."""
    restarts: int
    deterministic: bool = True
    """The config's `deterministic`."""
    disk_wait_minutes: float = 20.0
    """The config's `checkpoints.disk_wait_minutes`."""
    idle_gpu_minutes: float | None = None
    """The config's `watchdog.idle_gpu_minutes`."""
    trackers: tuple[str, ...] = ()
    """The names of the trackers in the config's `tracking.to`."""
    notify: tuple[str, ...] = ()
    """The config's `notify.on`, if there is anybody to tell; otherwise empty."""
    allocation: Allocation | None = None
    """The user's allocation that the run uses (--here); None otherwise."""
    python: str = sys.executable
    variables: tuple[str, ...] = ()
    """Environment variables that the run's processes read besides: those that its config refers to. Their values are
    in no file of the run, so the job must inherit them from the shell that starts or resumes the run."""
    references: dict[str, str] = field(default_factory=dict)
    """A short digest of each value of the config that refers to them, by dotted key; '' for a secret. A resume compares
    them."""
    references_salt: str = ""
    """What the digests begin with; '' without references."""
    versions: Versions | None = None
    """The versions that the preflight check found; None without one."""
