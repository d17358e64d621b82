"""The JSON files of a run's checkpoints and evaluations. `records.py` has the others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from drumbeat.configs.run.record import Record
from drumbeat.configs.run.versions import Versions


@dataclass(frozen=True, kw_only=True)
class Span(Record):
    """A part of the ledger: consecutive steps of one phase, from one checkpoint to the next, and a digest of the
    samples they used (`data/ledger.py`)."""

    phase: int
    first_step: int
    """Number of the first step within the phase, from 0."""
    steps: int
    samples: int
    """Samples used in these steps."""
    digest: str
    """In hexadecimal, because JSON readers may round large integers."""
    attempt: int
    world_size: int
    """Number of ranks of that attempt."""


ChangedBy = Literal["resume", "fork"]


@dataclass(frozen=True, kw_only=True)
class ConfigChange(Record):
    """A key of a run's config whose value has changed on a resume, or at the step of a fork."""

    key: str
    """The dotted key."""
    old: Any = None
    """None if the key was not set."""
    new: Any = None
    step: int
    """The step of the checkpoint that the run resumed from: later steps were taken with the new value."""
    attempt: int
    user: str
    """Who resumed the run."""
    time: float
    """When the attempt started that took the new value, in seconds since 1970."""
    by: ChangedBy = "resume"
    """The command that has changed it."""


EndReason = Literal["patience", "target", "hours"]
"""Why a phase has ended before its last epoch: see `configs/run/ends.py`."""


@dataclass(frozen=True, kw_only=True)
class PhaseEnd(Record):
    """The end of a phase before its last epoch."""

    phase: int
    steps: int
    """Steps taken in the phase."""
    reason: EndReason
    text: str
    """What has ended which phase, for users."""


@dataclass(frozen=True, kw_only=True)
class Progress(Record):
    """The progress of a run. The position in the data, the order of samples and the randomness follow from it."""

    step: int = 0
    """Optimizer steps taken, over all phases."""
    phase: int = 0
    phase_step: int = 0
    """Steps taken in that phase; all of its steps once it is finished."""
    samples: int = 0
    """Samples seen, over all phases."""
    skipped: int = 0
    """How many of them were unreadable and replaced by others."""
    steps_skipped: int = 0
    """How many of the steps were skipped because their loss or gradient was NaN or Inf."""
    micro_batch_size: int | None = None
    """The samples that a rank computes at once, as found with `micro_batch_size: auto`; None if all of its share fit.
    """
    ledger: tuple[Span, ...] = ()
    """Which samples were used."""
    data: dict[str, Any] = field(default_factory=dict)
    """The training set: its number of `samples` and, if it can compute them, the digests `files` and `times`."""
    best: dict[str, Any] = field(default_factory=dict)
    """The best evaluation so far: its `step` and its metrics."""
    last: dict[str, Any] = field(default_factory=dict)
    """The newest evaluation: its `step` and its metrics."""
    top: tuple[dict[str, float], ...] = ()
    """The best evaluations so far, as many as `checkpoints.keep_best`, the best first: the `step` and the monitored
    `value` of each."""
    kept: tuple[int, ...] = ()
    """The steps whose checkpoints are kept for good, by `checkpoints.keep_every_epochs`."""
    plateau: float | None = None
    """The monitored value in this phase that the next ones are compared with for `patience`; None before the first."""
    stale: int = 0
    """Evaluations since then, of which none was better."""
    ended: tuple[PhaseEnd, ...] = ()
    """The phases that have ended before their last epoch."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds spent on each kind of work, over all attempts: see `trainers/time_spent.py`."""
    changes: tuple[ConfigChange, ...] = ()
    """What resumes have changed in the config: see `configs/run/changes.py`."""

    def advanced(self, samples: int) -> Progress:
        """The progress after one more step, on this many samples."""
        after = object.__new__(Progress)  # `replace` looks at all fields, and takes four times as long
        after.__dict__.update(self.__dict__, step=self.step + 1, phase_step=self.phase_step + 1,
                              samples=self.samples + samples)
        return after

    def begun(self, phase: int) -> Progress:
        """The progress at the start of a phase."""
        return replace(self, phase=phase, phase_step=0, plateau=None, stale=0)

    @property
    def is_among_best(self) -> bool:
        """Whether the weights of this step are to be kept because of their evaluation."""
        return self.step in (self.best.get("step"), *(one["step"] for one in self.top))

    @property
    def kept_steps(self) -> set[int]:
        """The steps whose checkpoints are kept although there are newer ones."""
        return {*self.kept, *(int(one["step"]) for one in ([self.best] if self.best else []) + [*self.top])}


@dataclass(frozen=True, kw_only=True)
class CheckpointState(Record):
    """checkpoints/step-N/state.json: the training state that is not a tensor. Written by the writer, for rank 0."""

    progress: Progress
    optimizer: dict[str, Any] = field(default_factory=dict)
    """Its state dict and, by the path of the attribute, those of the optimizers inside it, as
    `trainers/checkpoints/codec.py` writes them."""
    scheduler: dict[str, Any] = field(default_factory=dict)
    """The state dict of the scheduler, `state`; empty without one."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """The state dict of the gradient scaler; empty unless the precision is fp16."""
    quanta: dict[str, int] = field(default_factory=dict)
    """The exponents of the quanta that gradients are rounded to, by the names of their parameters; empty unless the
    config has `virtual_ranks`."""
    versions: Versions | None = None
    """The versions that rank 0 computed with; None in checkpoints of older versions of Drumbeat."""
    config: dict[str, Any] = field(default_factory=dict)
    """The part of the run's config that a resume may change and that its result depends on, without secrets."""


@dataclass(frozen=True, kw_only=True)
class FileDigest(Record):
    """A file of a checkpoint, as it was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CheckpointFormat(Record):
    """The first part of a manifest. It is read alone, because a newer version may have changed everything else."""

    format: int
    """The version of the checkpoint format."""


@dataclass(frozen=True, kw_only=True)
class Manifest(CheckpointFormat):
    """checkpoints/step-N/manifest.json: the files of a checkpoint. Written last, by the writer."""

    step: int
    attempt: int
    files: dict[str, FileDigest]


@dataclass(frozen=True, kw_only=True)
class Metrics(Record):
    """The metrics of an evaluated dataset."""

    kind: str
    """The kind of task: classification, multilabel or regression."""
    metrics: dict[str, float | None]
    """By name; None if a metric is undefined or not finite."""
    classes: list[dict[str, Any]]
    """A row for each class, label or value: its `name`, its `samples`, and its metrics."""
    confusion: list[list[int]] | None = None
    """The confusion matrix of a classification: rows are true classes, columns are predicted classes."""


@dataclass(frozen=True, kw_only=True)
class EvaluationMetrics(Metrics):
    """evaluation/SPLIT-STEP/metrics.json. Written by `drumbeat evaluate`."""

    run: str
    """The run's id."""
    split: str
    checkpoint: str
    """Which checkpoint was evaluated, as text."""
    step: int
    """The step of the checkpoint."""
    samples: int
    unreadable: int
    """Samples that could not be read."""
