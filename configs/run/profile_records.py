"""The records of `drumbeat profile`: a request for a profile of some steps, and what the ranks have measured."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.record import Record
from drumbeat.configs.text_table import aligned

MOST_STEPS = 1000
"""The most steps of a profile: a trace has thousands of events for each."""

PARTS = ("data", "forward", "backward", "communication", "optimizer", "other")
"""The parts of a step, as fields of `Profile`."""


@dataclass(frozen=True, kw_only=True)
class ProfileRequest(Record):
    """attempts/K/profile.json: a request to profile the next steps. Written by `drumbeat profile`; removed by rank 0
    when the ranks begin."""

    id: str
    """Identifies the request in its result."""
    steps: int
    ranks: tuple[int, ...]
    """The ranks that write a trace."""
    time: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise ValueError(f"'steps' is {self.steps}, not 1 to {MOST_STEPS:,}")

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """The request in a file, which is removed; None if there is none, or if it is damaged."""
        try:
            return cls.read(path)
        except DamagedError:
            return None
        finally:
            with suppress(OSError):
                path.unlink()


@dataclass(frozen=True, kw_only=True)
class Profile(Record):
    """attempts/K/profile-N.json: where the ranks spent the time of some steps, the first of which is N. Written by rank
    0, when the traces are written.

    Each field of `PARTS` has, by rank, seconds of an average step."""

    id: str
    """Of the request."""
    step: int
    """The first step that was measured."""
    steps: int
    """How many were measured; fewer than requested, perhaps none, if the phase has ended."""
    data: tuple[float, ...]
    """Waiting for the batch, while the device had nothing to compute."""
    forward: tuple[float, ...]
    """The forward pass of the model; NaN if its module does not tell."""
    backward: tuple[float, ...]
    """The loss and the backward pass, up to the rank's own gradients."""
    communication: tuple[float, ...]
    """From the rank's own gradients to those of all ranks: what the backward pass does not hide, and waiting for slower
    ranks."""
    optimizer: tuple[float, ...]
    other: tuple[float, ...]
    """Everything else: logging, saving, evaluating."""
    samples: tuple[float, ...]
    """By rank, its samples in an average step."""
    traces: tuple[int, ...] = ()
    """The ranks that were asked for a trace."""
    time: float = field(default_factory=time.time)

    @property
    def text(self) -> str:
        """A table of milliseconds: a row for each rank, their median and the differences between them."""
        parts = {name: getattr(self, name) for name in PARTS}
        whole = [sum(value for value in rank if not math.isnan(value)) for rank in zip(*parts.values(), strict=True)]
        columns: dict[str, Sequence[float]] = {"step": whole, **parts}
        rows = [["rank", *columns, "samples"],
                *([str(rank), *(_milliseconds(values[rank]) for values in columns.values()), f"{self.samples[rank]:g}"]
                  for rank in range(len(whole)))]
        if len(whole) > 1:
            rows += [[name, *(_milliseconds(of(values)) for values in columns.values()), ""]
                     for name, of in (("median", _median), ("max - min", _spread))]
        head = f"steps {self.step:,} to {self.step + self.steps - 1:,}, milliseconds of an average step"
        return "\n".join([head, *aligned(rows, right=range(1, len(rows[0])))])


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if all(map(math.isfinite, values)) else math.nan


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values) if all(map(math.isfinite, values)) else math.nan


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{1e3 * seconds:.2f}"
