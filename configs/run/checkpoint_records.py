"""The JSON files of a run's checkpoints and evaluations, as `records.py` has the others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from drumbeat.configs.run.record import Record
from drumbeat.configs.run.versions import Versions


@dataclass(frozen=True, kw_only=True)
class Span(Record):
    """A part of the ledger: consecutive steps of one phase, from one checkpoint to the next, and a digest of the
    samples they used (`data/ledger.py`)."""

    phase: int
    first: int
    """Number of the first step within the phase, from 0."""
    steps: int
    samples: int
    """Samples that arrived."""
    digest: str
    """In hexadecimal, because JSON's readers may round large integers."""
    attempt: int
    ranks: int
    """World size of that attempt."""


@dataclass(frozen=True, kw_only=True)
class Progress(Record):
    """How far a run has come. Position, order and randomness follow from it."""

    step: int = 0
    """Optimizer steps taken, over all phases."""
    phase: int = 0
    phase_step: int = 0
    """Steps taken in that phase; all of them where the phase is over."""
    samples: int = 0
    """Samples seen, over all phases."""
    skipped: int = 0
    """Of these, samples that could not be read, and that others stood in for."""
    ledger: tuple[Span, ...] = ()
    """Which samples were used."""
    data: dict[str, Any] = field(default_factory=dict)
    """The training set as it was: its `samples` and, where it can tell, the digests of its `files` and `times`."""
    best: dict[str, Any] = field(default_factory=dict)
    """The best evaluation so far: its `step` and its metrics."""
    last: dict[str, Any] = field(default_factory=dict)
    """The newest evaluation, likewise."""
    seconds: dict[str, float] = field(default_factory=dict)
    """What the time that led here went into, over all attempts: see `trainers/clock.py`."""

    def advanced(self, samples: int) -> Progress:
        """The progress after a step on so many samples."""
        return replace(self, step=self.step + 1, phase_step=self.phase_step + 1, samples=self.samples + samples)


@dataclass(frozen=True, kw_only=True)
class CheckpointState(Record):
    """checkpoints/step-N/state.json: what training keeps beside the tensors. Written by the writer, for rank 0."""

    progress: Progress
    optimizer: dict[str, Any] = field(default_factory=dict)
    """The settings of its groups, and state that is no tensor."""
    scheduler: dict[str, Any] = field(default_factory=dict)
    versions: Versions | None = None
    """The versions that rank 0 computed with; None in checkpoints of older versions of Drumbeat."""


@dataclass(frozen=True, kw_only=True)
class FileDigest(Record):
    """A file of a checkpoint, as it was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CheckpointFormat(Record):
    """The beginning of a manifest, which is read first: a newer version may have written all else in another way."""

    format: int
    """The version of what a checkpoint's folder holds."""


@dataclass(frozen=True, kw_only=True)
class Manifest(CheckpointFormat):
    """checkpoints/step-N/manifest.json: the files of a checkpoint. Written last, by the writer."""

    step: int
    attempt: int
    files: dict[str, FileDigest]


@dataclass(frozen=True, kw_only=True)
class Metrics(Record):
    """What an evaluated set came to."""

    kind: str
    """The kind of task: classification, multilabel or regression."""
    metrics: dict[str, float | None]
    """By name; None where one is not defined, or not finite."""
    classes: list[dict[str, Any]]
    """A row for each class, label or value: its `name`, its `samples`, and its metrics."""
    confusion: list[list[int]] | None = None
    """Of a classification: how many samples of each class (row) were taken for each (column)."""


@dataclass(frozen=True, kw_only=True)
class EvaluationMetrics(Metrics):
    """evaluation/SPLIT-STEP/metrics.json. Written by `drumbeat evaluate`."""

    run: str
    """The run's id."""
    split: str
    checkpoint: str
    """Which one, in words."""
    step: int
    """Of the checkpoint."""
    samples: int
    left_out: int
    """Samples that could not be read."""
