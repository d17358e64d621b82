"""The sections of a config that do not affect the result: when it saves, what it draws, where and how it runs.

Any of their keys may change on a resume.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from drumbeat.configs.fields import above, at_least


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When to save, and what to keep. A checkpoint is also saved when an evaluation finds the best weights so far, when
    the run is stopped, at the end of each phase, and at other evaluations unless they follow each other too quickly."""

    every_steps: int | None = at_least(1, None)
    """Optimizer steps between two checkpoints. Null saves by every_minutes only."""
    every_minutes: float = above(0, 10.0)
    """Minutes between two checkpoints."""
    disk_wait_minutes: float = at_least(0, 20.0)
    """Minutes that a run pauses if the disk is full, read-only or not available, before the attempt fails."""
    keep: int = at_least(1, 2)
    """How many of the newest checkpoints to keep. The best one is kept as well."""
    keep_best: int = at_least(1, 1)
    """How many of the best checkpoints to keep."""
    keep_every_epochs: float | None = above(0, None)
    """Save and keep a checkpoint after every so many epochs of a phase, and at its end. Null keeps none of them."""


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """What rank 0 writes for TensorBoard."""

    every_steps: int = at_least(1, 10)
    """Optimizer steps between two points of the training curves."""
    loss_smoothing_steps: int = at_least(1, 1)
    """The training loss in the curves is the mean of this many steps. The mean starts again on resume."""
    images: int = at_least(0, 16)
    """Images in each contact sheet of training samples and of misclassified validation samples. 0 for none."""
    to: list[Any] = field(default_factory=list)
    """Trackers that get the curves, pictures and config as well: mlflow, wandb, trackio, or targets with arguments,
    {_target_: drumbeat.trainers.trackers.MLflow, experiment: NAME}. A process beside the run sends them."""


@dataclass(frozen=True, kw_only=True)
class Notify:
    """Whom to tell when the run ends or needs somebody. A process beside the run does it, once for each event."""

    to: list[str] = field(default_factory=list)
    """Environment variables, by name, that hold an address as Apprise writes them: mailto://, slack://, json://. The
    addresses themselves, which hold passwords, are in no file of the run."""
    command: str = ""
    """A shell command to run as well. It finds what to tell in DRUMBEAT_EVENT, DRUMBEAT_RUN, DRUMBEAT_TITLE and
    DRUMBEAT_TEXT."""
    on: list[str] = field(default_factory=lambda: ["finished", "failed", "paused", "waiting"])
    """The events: finished, failed (it was given up), paused (its disk is full or gone), waiting (it waits in SLURM's
    queue for more than waiting_hours)."""
    waiting_hours: float = above(0, 12.0)
    """Hours in the queue that are too long. Nothing of a run runs while it waits: the next command that looks at it
    reports that (ls, status, why), or the run itself when it starts."""


@dataclass(frozen=True, kw_only=True)
class Watchdog:
    """Detects ranks that hang, and ranks whose weights differ."""

    timeout_minutes: float | None = above(0, None)
    """Minutes without a step after which a rank counts as hanging: its stacks are written to the run folder, and the
    run restarts. The time for which SLURM suspends a job does not count. Null waits 30 minutes, or 50 times the longest
    step if that is more."""
    idle_gpu_minutes: float | None = above(0, None)
    """Minutes for which a GPU computes nothing after which the run is saved and stopped. Null never stops it; status
    then tells of GPUs that are idle for 10 minutes."""
    desync_check_steps: int = at_least(1, 1000)
    """Optimizer steps between two checks that all ranks have bitwise identical weights."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The processes of the run. --nodes, --gpus and --procs set these values."""

    nodes: int | None = at_least(1, None)
    """The number of nodes. Null is 1, or all nodes of the allocation with --here."""
    min_nodes: int | None = at_least(1, None)
    """The least number of nodes with which the run trains when others are lost, or SLURM has no more of them. Null
    needs all. --nodes 2-4 sets it to 2, and nodes to 4."""
    gpus: int | None = at_least(0, None)
    """Ranks per node, with one GPU each. Null uses all GPUs of this machine; 0 trains on the CPU."""
    procs: int = at_least(1, 1)
    """Ranks per node when training on the CPU."""
    cpus_per_rank: int | None = at_least(1, None)
    """Cores per rank. Null divides the cores of this machine; on a cluster it requests 8 with a GPU and 2 without."""
    restarts: int = at_least(0, 3)
    """How many attempts in a row may fail without a new checkpoint before the run fails."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The figures of a source, which the report draws and lists beside the run's own. They do not affect the run."""

    source: str = ""
    """Where the figures are from, as text."""
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """The figures by phase and curve, a number for each epoch: {train: {train/loss: [0.9, 0.7], validation/accuracy:
    [0.71, 0.78]}}. train/loss is the mean training loss of an epoch."""
