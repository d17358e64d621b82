"""Every JSON file of a run: who writes it, and what it holds. The launcher, the ranks, the checkpoint writer and the
commands communicate only through these files.

Each file has one writer at a time. The files of an attempt are in the attempt's folder, so a superseded attempt cannot
overwrite those of a newer one. `status.json` has several writers: it is always replaced as a whole, and an attempt that
is not the newest may not write it (`RunDir.write_status`).
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from drumbeat.configs.run.checkpoint_records import ConfigChange, PhaseEnd
from drumbeat.configs.run.files import without_nan
from drumbeat.configs.run.processes import process_space
from drumbeat.configs.run.rank_records import Imports
from drumbeat.configs.run.record import Record

BackendName = Literal["debug", "local", "here", "slurm"]
"""In the process of the command, on this machine, in the SLURM allocation of this shell, in a SLURM job of its own."""

State = Literal["pending", "running", "paused", "preempted", "stopped", "failed", "finished", "cancelled"]
ENDED: tuple[State, ...] = ("stopped", "failed", "finished", "cancelled")

JOB_ID = re.compile(r"[0-9]{1,20}(_[0-9]{1,10})?(;[A-Za-z0-9_-]{1,64})?")
"""A process id, or the number of a SLURM job, perhaps with that of its task and its cluster: it becomes a part of paths
and commands."""

MORE_NODES = "more nodes"
"""The reason of a stop for nodes that had been left out. Any other one counts more."""
Outcome = Literal["finished", "stopped", "failed", "superseded"]
Next = Literal["leave", "restart", "requeue", "give up"]


@dataclass(frozen=True, kw_only=True)
class Job(Record):
    """job.json: where the run was started. Written by the command that starts it; rewritten by a job that takes over
    the run and by `cancel`."""

    backend: BackendName
    id: str | None = None
    """SLURM's job id, as "12;gpu" if sbatch names the cluster, or the process id of submitit's local controller; None
    until it is known, and in debug."""
    host: str = ""
    space: str = ""
    """Where its processes can be seen: see `configs/run/processes.py`; '' if unknown."""
    time: float = 0.0
    """When the run was started, in seconds since 1970; 0 if unknown."""
    pid: int | None = None
    """The process id of the run in debug; otherwise None."""
    next_job: str | None = None
    """The id of the queued job that resumes the run if this job ends early."""
    cancelled: bool = False

    def __post_init__(self) -> None:
        for job in (self.id, self.next_job):
            if job is not None and not JOB_ID.fullmatch(job):
                raise ValueError(f"{json.dumps(job):.40} is not the id of a job")

    @property
    def is_here(self) -> bool:
        """Whether it was started on this machine, in its present boot and this PID namespace."""
        return self.space == process_space() if self.space else self.host in ("", socket.gethostname())


@dataclass(frozen=True, kw_only=True)
class Change(Record):
    """lock.json: the command that is changing the run, or was the last to do so. Written by this command, which locks
    the file (flock) while it starts, resumes, stops, cancels or cleans the run."""

    command: str
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    space: str = field(default_factory=process_space)
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class Status(Record):
    """status.json: the state of the run (its progress is in the newest heartbeat.json). Written by the command that
    starts or cancels it, and by the first node's launcher."""

    state: State
    attempt: int = -1
    """The attempt that the state refers to; -1 before the first."""
    verdict: str = ""
    """The reason for the state, in one line."""
    time: float = field(default_factory=time.time)
    """When the file was written, in seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Heartbeat(Record):
    """attempts/K/heartbeat.json: the progress of an attempt. Written by its rank 0, at most once a second."""

    step: int = 0
    """Optimizer steps taken, over all phases."""
    steps: int = 0
    """Optimizer steps of the whole run; 0 until the number is known."""
    steps_skipped: int = 0
    """How many of them were skipped because their loss or gradient was NaN or Inf."""
    micro_batch_size: int | None = None
    """Samples that a rank computes at once, as found with `micro_batch_size: auto`; None if all of its share fit."""
    phase: str = ""
    phase_step: int = 0
    phase_steps: int = 0
    epoch: float | None = None
    loss: float | None = None
    samples_per_second: float | None = None
    eta_seconds: float | None = None
    validation: dict[str, float] = field(default_factory=dict)
    """The newest metrics of the validation set."""
    monitor: str = ""
    """The validation metric that decides which weights are best (`evaluation.monitor`); '' before it is known."""
    best: float | None = None
    """The best value of that metric so far; None before the first evaluation."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds spent on each kind of work: see `trainers/time_spent.py`."""
    gpu: dict[str, int] = field(default_factory=dict)
    """Rank 0's GPU: `reserved` bytes, `peak` bytes in tensors, `total` bytes, and `utilization` in percent if known."""
    imports: Imports | None = None
    """Those of this attempt on the first node; None if it was forked from a process that had imported all before."""
    pause_reason: str = ""
    """Why the run is paused; '' if it is not."""
    changes: tuple[ConfigChange, ...] = ()
    """What `drumbeat resume` has changed in the run's config: see `configs/run/changes.py`."""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """result.json: the result of a finished run. Written by rank 0."""

    steps: int
    samples_seen: int
    overshoot: int
    """Samples read past the end of the last epoch, summed over the phases."""
    samples_skipped: int = 0
    """Unreadable samples that were replaced by others."""
    steps_skipped: int = 0
    """Steps that were skipped because their loss or gradient was NaN or Inf: `on_nonfinite: skip`."""
    weights_sha256: str = ""
    """A digest of the last weights, for comparing two runs."""
    last: dict[str, Any] = field(default_factory=dict)
    """The newest evaluation: its `step`, its `phase` and its metrics."""
    best: dict[str, Any] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    deterministic: bool = True
    """The config's `deterministic`."""
    nondeterministic_operations: tuple[str, ...] = ()
    """Operations without a deterministic implementation that the run used: see `configs/run/determinism.py`."""
    changes: tuple[ConfigChange, ...] = ()
    """What `drumbeat resume` has changed in its config: the run is exact up to the first of these steps."""
    ended: tuple[PhaseEnd, ...] = ()
    """The phases that ended before their last epoch, and why."""

    def as_json(self) -> dict[str, Any]:
        """Strict JSON, because users' programs read it."""
        strict: dict[str, Any] = without_nan(super().as_json())
        return strict


@dataclass(frozen=True, kw_only=True)
class AttemptStart(Record):
    """attempts/K/launch.json: who takes part in an attempt, and where. Written by the first node's launcher."""

    job: str
    """Identifies the start of the job that claimed the attempt: see `launch/slurm/job.py`."""
    host: str = ""
    """The first node's name."""
    nodes: tuple[str, ...] = ()
    """The names of the attempt's nodes in their order; empty if unknown."""
    members: tuple[int, ...] = ()
    """The numbers of these nodes among those of the job, which may be more; empty in older runs."""
    ranks: int = 0
    address: str
    """The first node's IP address on the way to the second node; 127.0.0.1 on one node; its name if that is unknown."""
    port: int
    on_slurm: bool = False
    """Whether the launchers run in a SLURM job, so that nodes have names by which later jobs can leave them out."""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class FirstStep(Record):
    """attempts/K/first_step.json: the attempt has taken its first step. Written by rank 0."""

    resumed_from: int
    """The step of the checkpoint that it resumed from; 0 without one."""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class StopRequest(Record):
    """attempts/K/stop.json: a request to save and stop. Written by whoever stops the run; the first request counts."""

    reason: str
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class Saved(Record):
    """attempts/K/saved.json: the attempt ended normally, with a checkpoint. Written by rank 0."""

    state: Literal["finished", "stopped"]
    step: int
    continues: bool = False
    """Whether it has stopped because the next attempt trains the next part of a fork: see `fork.py`."""


@dataclass(frozen=True, kw_only=True)
class Verdict(Record):
    """attempts/K/verdict.json: how an attempt ended, and what happens next; missing while it runs, or if all launchers
    were killed. Written by the first node's launcher."""

    outcome: Outcome
    next: Next
    message: str
    """One line for the user."""
    step: int
    """The step of the newest good checkpoint; -1 if there is none."""
    reason: str = ""
    """The reason of a stop; "suspended" for a failure after the job was suspended, which does not count."""
    rank: int = -1
    """The rank that failed first, whose log says most; -1 if unknown."""
    error: str = ""
    """The type, step and rank of an exception. Two failures with the same value are the same failure."""
    bad_nodes: dict[str, str] = field(default_factory=dict)
    """The nodes that failed for a reason of the machine, each with the reason: see `bad_nodes.py`."""
    left_out: tuple[int, ...] = ()
    """The numbers of the job's nodes that the next attempt leaves out."""
    cleared: str = ""
    """The node that the verdict before has blamed, wrongly as this attempt shows; '' if there is none."""

    @property
    def state(self) -> State:
        """The state of the run after this attempt."""
        if self.next == "restart":
            return "running"
        if self.next == "requeue":
            return "preempted"
        if self.next == "give up":
            return "failed"
        return "finished" if self.outcome == "finished" else "cancelled" if self.reason == "cancelled" else "stopped"


@dataclass(frozen=True, kw_only=True)
class NodeUp(Record):
    """attempts/K/nodeN.up.json: a node before its torchrun starts. Written by its launcher."""

    host: str
    interface: str | None = None
    """The network interface that leads to the first node."""
    connection_error: str | None = None
    """Why it cannot connect to the first node; '' if it can, None until it is known."""
    connection_seconds: float | None = None
    """How long the connection took, or the attempts that failed."""


@dataclass(frozen=True, kw_only=True)
class NodeDown(Record):
    """attempts/K/nodeN.down.json: a node's torchrun has ended. Written by its launcher."""

    exit_code: int | None
    """torchrun's exit code; None if it was ended, or not started, because of another node or a stop."""
    host: str
    message: str = ""
    """Why torchrun could not be started on this node."""
    check: Literal["", "missing", "failed"] = ""
    """What the checks before torchrun have found: that this node lacks something, perhaps like all nodes; or that the
    site's check failed, which is about this node alone. '' if they found nothing."""


@dataclass(frozen=True, kw_only=True)
class RankError(Record):
    """attempts/K/rankR.error.json: the exception that ended a rank. Written by the rank."""

    rank: int
    node: str
    type: str
    message: str
    step: int
    traceback: str = ""
    user_error: bool = False
    """Whether it is a mistake of the user, which a restart does not fix."""
    time: float = field(default_factory=time.time)
