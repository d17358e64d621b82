"""Every JSON file of a run: who writes it, and what it holds. Launcher, ranks, writer and commands speak to each other
through these files alone.

A file has one writer at a time, by its place: what belongs to an attempt lies in the attempt's folder, so an attempt
that was superseded writes nowhere else. `status.json` is what several write; it is written whole, and refused for an
attempt that is not the newest (`RunDir.write_status`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from drumbeat.configs.run.record import Record

Where = Literal["debug", "local", "here", "slurm"]
"""In this process, on this machine, in the SLURM allocation around this shell, in a job of its own."""

State = Literal["pending", "running", "paused", "preempted", "stopped", "failed", "finished", "cancelled"]
ENDED: tuple[State, ...] = ("stopped", "failed", "finished", "cancelled")

Outcome = Literal["finished", "stopped", "failed", "superseded"]
Next = Literal["leave", "restart", "requeue", "give up"]


@dataclass(frozen=True, kw_only=True)
class Job(Record):
    """job.json: where the run was started. Written by the command that starts it; a job that takes the run over from
    the one before, and `cancel`, write it anew."""

    where: Where
    id: str | None = None
    """SLURM's job id, or the process id of submitit's local controller; None until it is known, and in debug."""
    host: str = ""
    process: int | None = None
    """The process itself, in debug."""
    successor: str | None = None
    """The job that is queued to follow this one if it ends without success."""
    cancelled: bool = False


@dataclass(frozen=True, kw_only=True)
class Status(Record):
    """status.json: the state of the run. Written by the command that starts or cancels it, and by the first node's
    launcher; how far it has come stands in the newest attempt's heartbeat."""

    state: State
    attempt: int = -1
    """The attempt that this is about; -1 before the first."""
    verdict: str = ""
    """Why it is so, in a line."""
    time: float = field(default_factory=time.time)
    """When it was written, in seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Heartbeat(Record):
    """attempts/K/heartbeat.json: how far an attempt has come. Written by its rank 0, each second at most."""

    step: int = 0
    """Optimizer steps taken, over all phases."""
    steps: int = 0
    """All that the run will take; 0 where it is not known yet."""
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
    """What the time went into: see `trainers/clock.py`."""
    gpu: dict[str, int] = field(default_factory=dict)
    """Bytes held by rank 0 (`held`), by tensors at most (`peak`), of the device (`all`), and `busy` in percent."""
    paused: str = ""
    """Why the run waits, in words; '' where it does not."""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """result.json: what a finished run came to. Written by rank 0."""

    steps: int
    samples_seen: int
    overshoot: int
    """Samples past the end of the last epoch of each phase."""
    samples_skipped: int = 0
    """Samples that could not be read, and that others stood in for."""
    weights_sha256: str = ""
    """A digest of the last weights, to compare two runs by."""
    last: dict[str, Any] = field(default_factory=dict)
    """The newest evaluation: its `step`, its `phase` and its metrics."""
    best: dict[str, Any] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    deterministic: bool = True
    """Whether the config asks for the same bits each time."""
    nondeterministic_operations: tuple[str, ...] = ()
    """Operations without a deterministic implementation that the run met: see `configs/run/determinism.py`."""


@dataclass(frozen=True, kw_only=True)
class Operation(Record):
    """nondeterministic/NAME.json: an operation without a deterministic implementation, and where the run first met it.
    Written by the rank that met it."""

    name: str
    """As torch calls it: "cumsum_cuda_kernel", "Flash Attention"."""
    attempt: int
    rank: int
    line: str
    """The line of Python that ran it, FILE:LINE; for a backward pass, the line in torch that starts it."""


@dataclass(frozen=True, kw_only=True)
class AttemptStart(Record):
    """attempts/K/launch.json: where the ranks of an attempt meet. Written by the first node's launcher."""

    job: str
    """The start of the job that claimed the attempt: see `launch/slurm/job.py`."""
    address: str
    port: int
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class FirstStep(Record):
    """attempts/K/begun.json: that an attempt has taken its first step. Written by rank 0."""

    resumed_from: int
    """The step it resumed from; 0 for none."""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class StopRequest(Record):
    """attempts/K/stop.json: that the run is to save and leave. Written by whoever wants that; the first one stands."""

    reason: str
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class Saved(Record):
    """attempts/K/saved.json: that an attempt ended in order. Written by rank 0."""

    state: Literal["finished", "stopped"]
    step: int


@dataclass(frozen=True, kw_only=True)
class Verdict(Record):
    """attempts/K/verdict.json: what an attempt came to, and what is next. Written by the first node's launcher when the
    attempt is over; None where it goes on, or all its launchers were killed."""

    outcome: Outcome
    next: Next
    words: str
    """For a reader, one line."""
    step: int
    """Of the newest good checkpoint; -1 where there is none."""
    reason: str = ""
    """Of a stop."""
    rank: int = -1
    """The rank that a failure began with, whose log tells most; -1 where it is not known."""
    error: str = ""
    """The kind, step and rank of an exception: what makes two failures the same."""

    @property
    def state(self) -> State:
        """The state of the run after it."""
        if self.next == "restart":
            return "running"
        if self.next == "requeue":
            return "preempted"
        if self.next == "give up":
            return "failed"
        return "finished" if self.outcome == "finished" else "cancelled" if self.reason == "cancelled" else "stopped"


@dataclass(frozen=True, kw_only=True)
class NodeUp(Record):
    """attempts/K/nodeN.present.json: a node before its torchrun starts. Written by its launcher."""

    host: str
    interface: str | None = None
    """By which it reaches the first node."""
    trouble: str | None = None
    """Why it does not; '' where it does, None where it is not known yet."""
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class NodeDown(Record):
    """attempts/K/nodeN.down.json: that a node's torchrun has ended. Written by its launcher."""

    code: int | None
    """Its exit code; None where it was ended, or not begun, because of another node or a stop."""
    host: str
    words: str = ""
    """Why this node could not even begin."""


@dataclass(frozen=True, kw_only=True)
class RankError(Record):
    """attempts/K/rankR.error.json: what went wrong on a rank. Written by it."""

    rank: int
    node: str
    type: str
    message: str
    step: int
    traceback: str = ""
    final: bool = False
    """Whether it is a mistake of the user's, which no restart mends."""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class CodeTree(Record):
    """A folder of code in a snapshot."""

    name: str
    """Its folder below RUN/code."""
    folder: str
    """Where it was copied from."""
    files: int = 0
    bytes: int = 0
    commit: str = ""
    changed: int = 0
    """Files that differ from that commit."""
    foreign: bool = False
    """Whether it belongs to another user, whose git configuration is not trusted."""
    secret: tuple[str, ...] = ()
    """Files left out because they probably hold a password or a key."""
    other: tuple[str, ...] = ()
    """Files left out because git does not track them and they are not code."""


@dataclass(frozen=True, kw_only=True)
class CodeSnapshot(Record):
    """code/snapshot.json: the code of a run. Written when it is copied."""

    trees: tuple[CodeTree, ...]
    home: str
    """The folder in which Python finds Drumbeat: relative to RUN/code, or absolute where it is not copied."""
    folder: str
    """The folder the command was typed in, likewise."""
    python_path: tuple[str, ...] = ()
    """The folders in PYTHONPATH, likewise."""
    targets: tuple[str, ...] = ()
    """Other folders in which targets are found, likewise; those of packages that were installed as editable."""
    time: float = field(default_factory=time.time)
