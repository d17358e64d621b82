"""The JSON files of a replay, which is a run in a folder of its own that resumes from a checkpoint of another run."""

from __future__ import annotations

from dataclasses import dataclass, field

from drumbeat.configs.run.record import Record


@dataclass(frozen=True, kw_only=True)
class ReplayRequest(Record):
    """replay.json: how far a replay computes. Written by the command."""

    step: int
    """The run's step that is recorded, and after which the replay saves and ends."""
    debugs: bool = False
    """Whether it stops in pdb before it computes that step, and ends after it."""
    rank: int = 0
    """With `debugs`, the rank whose part of the step is computed, alone in this process."""
    ranks: int = 1
    """With `debugs`, the number of ranks of the run."""


@dataclass(frozen=True, kw_only=True)
class ReplayedStep(Record):
    """attempts/K/rankR.step.json: what a rank computed in the step of a `ReplayRequest`."""

    phase: str
    positions: tuple[int, ...]
    """Those of the rank's samples, in the order of the phase."""
    indices: tuple[int, ...]
    """The indices of these samples in the training set."""
    names: tuple[str, ...] = ()
    """Their names; empty if the set has none."""
    gradients: dict[str, str] = field(default_factory=dict)
    """The digest of the averaged gradient of each parameter, by name, in hexadecimal. Rank 0 alone has them."""
