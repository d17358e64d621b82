"""The records of slow ranks, slow imports and idle GPUs, and of the weights that a run has started from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from drumbeat.configs.run.record import Record

Part = Literal["data", "compute", "cores"]

SLOW_IMPORTS = 15.0
"""Imports that wait longer than this for files, in seconds, are reported. From a disk of the node, all of torch takes
some seconds."""


@dataclass(frozen=True, kw_only=True)
class SlowRank(Record):
    """A rank for which the others have waited."""

    rank: int
    node: str
    part: Part
    """What takes longer than on the other ranks: waiting for data, computing, or waiting for a core of the CPU."""
    share: float
    """The part of the time for which the others waited for it, when it was noticed."""
    step: int
    """The run's step at which it was noticed."""
    time: float
    """When it was noticed, in seconds since 1970."""
    until: float | None = None
    """When it was no longer slow; None if it still is."""

    @property
    def message(self) -> str:
        """One line for the user."""
        what = {"data": "waits longer for its data than the others", "compute": "computes more slowly than the others",
                "cores": "shares its cores with other programs, and is slower than the others"}[self.part]
        return f"rank {self.rank} on {self.node} {what}, which wait for it {self.share:.0%} of the time"


@dataclass(frozen=True, kw_only=True)
class RankTimes(Record):
    """attempts/K/ranks.json: how the ranks of an attempt spent their last seconds, and which were slow. Written by its
    rank 0."""

    step: int
    data: tuple[float, ...]
    """By rank, the seconds in which it waited for data, without anything to compute."""
    compute: tuple[float, ...]
    """By rank, the seconds in which it computed."""
    cores: tuple[float, ...]
    """By rank, the seconds in which it was ready to compute, but other programs used its cores. On the CPU only."""
    wait: tuple[float, ...]
    """By rank, the seconds in which it waited for the gradients of the others."""
    slow: tuple[SlowRank, ...] = ()
    """The slow ranks of the attempt, the newest last."""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class Imports(Record):
    """How long a process has taken to import its modules."""

    seconds: float
    waited: float
    """For how many of them it waited for files."""
    folder: str
    """The Python environment that it imports from."""

    @property
    def are_slow(self) -> bool:
        return self.waited > SLOW_IMPORTS

    @property
    def message(self) -> str:
        """One line for the user."""
        return (f"imports took {self.seconds:.0f} s, {self.waited:.0f} s of which they waited for files: {self.folder} "
                "is on a slow disk. A copy on each node's own disk, or a container image, starts faster")


@dataclass(frozen=True, kw_only=True)
class IdleGpus(Record):
    """attempts/K/nodeN.gpus.json: the GPUs of a node that compute nothing for long; missing if there never was one.
    Written by its launcher."""

    node: str
    minutes: dict[str, float] = field(default_factory=dict)
    """For how long, by the GPU's number in nvidia-smi."""
    time: float = field(default_factory=time.time)

    @property
    def message(self) -> str:
        """One line for the user."""
        names = sorted(self.minutes, key=lambda name: (len(name), name))
        return (f"GPU{'s' * (len(names) > 1)} {', '.join(names)} on {self.node} idle for "
                f"{max(self.minutes.values(), default=0.0):.0f} minutes")


@dataclass(frozen=True, kw_only=True)
class StartingWeights(Record):
    """starting_weights.json: the weights that the run has started from (`initialize`); missing if they were random.
    Written by rank 0 of an attempt without a checkpoint."""

    weights: str
    """Where they were, as in the config."""
    sha256: str
    """A digest of all weights that were there: that of a run's result, if they were those of a run."""
    table: str
    """What was taken, left out and new, as text of a few lines."""
    taken: dict[str, str] = field(default_factory=dict)
    """The name there by the name in the model."""
    left: tuple[str, ...] = ()
    """Names there that the model did not take."""
    new: tuple[str, ...] = ()
    """Names in the model that stayed random."""
