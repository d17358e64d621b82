"""What a task is: the meaning of a model's outputs, its loss and its metrics; and the results of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor
from torch.utils._pytree import tree_leaves

Kind = Literal["classification", "multilabel", "regression", "other"]


@dataclass(frozen=True)
class Results:
    """An evaluated set, sample by sample in the order of the set. Rank 0 has it; it is the same at any world size.

    `outputs`, `targets` and `summary` are what model, set and task return for a batch, joined: tensors [n, ...], lists
    of one value for each sample, or tuples and dicts of these. Floating-point outputs are float32.
    """

    losses: Tensor
    """float32 [n]."""
    outputs: Any = None
    """The model's outputs; None if the task has a `summary`."""
    targets: Any = None
    """The set's targets; None if the task has a `summary`."""
    subset: Tensor | None = None
    """int64 [n]: the indices of these samples in the set, if some could not be read and were left out; None for all."""
    weights: Tensor | None = None
    """float32 [n]: the weights of the losses, if the task has `weights`."""
    summary: Any = None
    """What the task's `summary` returns."""
    worst: Mapping[int, Any] = field(default_factory=dict)
    """For a task that draws: the predictions for the samples with the largest mean losses, worst first, by their
    numbers among the results."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The values of the metrics in `evaluation.metrics`."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """The means of the terms of the loss, if it has several."""

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        kept = tree_leaves([self.losses, self.weights, self.outputs, self.targets, self.summary])
        return sum(leaf.nbytes for leaf in kept if isinstance(leaf, Tensor))

    @property
    def mean_losses(self) -> Tensor:
        """float32 [n]: the mean loss of each sample, which is its loss over its weight; 0 for a weight of 0."""
        return self.losses if self.weights is None else (self.losses / self.weights).where(self.weights > 0, 0)

    @property
    def indices(self) -> list[int]:
        """The index of each sample in the set."""
        return list(range(len(self.losses))) if self.subset is None else [int(index) for index in self.subset]


@dataclass(frozen=True)
class WorstSample:
    """A sample on the sheet of the worst ones."""

    index: int
    """Among the results."""
    title: str
    """The prediction and the target, in two lines."""


class Task(Protocol):
    """What training, evaluation and inference call. Metrics always include "loss".

    A task may also have `weights(targets) -> float32 [n] or None`: the weight of each sample in the mean loss, for
    example the number of its pixels that count. The mean of a batch is then the sum of `losses` over the sum of the
    weights, and a sample's loss is the sum over what counts. What else it may have: `WholeBatchLoss`, `Selects`,
    `Summarizes`, `Draws`, `HasClassRows`, `HasSampleRows` and `FeedsMetrics`.
    """

    kind: Kind
    """Decides which tables and plots fit; "other" has tables of its own."""
    metric_names: tuple[str, ...]
    """The names of the metrics."""
    output_names: list[str]
    """The names of the classes, labels or values, in the order of the outputs; empty if unknown."""
    worst_title: str
    """What `worst_samples` returns, as a title: "misclassified samples, largest loss first"."""

    def losses(self, outputs: Any, targets: Any) -> Tensor | Mapping[str, Tensor]:
        """float32 [n]: the loss of each sample, from what the model returns; or several terms by their names, whose sum
        is the loss, and each of which is logged."""

    def metrics(self, results: Results) -> dict[str, float]:
        """The metrics of an evaluated set, under the names in `metric_names`."""

    def worst_samples(self, results: Results, most: int) -> list[WorstSample]:
        """At most `most` samples: the misclassified ones, or of a regression those with the largest losses, worst
        first."""

    def predictions(self, outputs: Tensor) -> Tensor:
        """The prediction for each sample: int64 [n], bool [n, labels] or float32 [n, values]."""

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """float32 [n, classes or labels], in the order of `output_names`; None for a regression."""

    def to_text(self, value: Tensor) -> str:
        """The prediction or the target of one sample as text."""


@runtime_checkable
class WholeBatchLoss(Protocol):
    """A task whose loss compares the samples of a batch with each other, such as a contrastive one. It is called with
    the outputs and targets of all ranks in training, and of a chunk in evaluation."""

    def batch_loss(self, outputs: Any, targets: Any) -> Tensor | Mapping[str, Tensor]:
        """A scalar: the loss of the batch; or several terms by their names, whose sum is the loss."""


def losses_of(task: Task, outputs: Any, targets: Any, n: int) -> Tensor | Mapping[str, Tensor]:
    """float32 [n]: the loss of each sample of an evaluated chunk, or its terms; for a loss of the whole batch, the
    chunk's."""
    if not isinstance(task, WholeBatchLoss):
        return task.losses(outputs, targets)
    found = task.batch_loss(outputs, targets)
    return found.expand(n) if isinstance(found, Tensor) else {name: term.expand(n) for name, term in found.items()}


def kept_outputs(task: Task, outputs: Any) -> Any:
    """The outputs that predictions and metrics are computed from: what the task selects, or all."""
    return task.select(outputs) if isinstance(task, Selects) else outputs


@runtime_checkable
class Selects(Protocol):
    """A task that needs a part of the model's outputs for its predictions and metrics, as those of Drumbeat do."""

    def select(self, outputs: Any) -> Any:
        """That part: for Drumbeat's tasks one tensor, [n, ...]."""


@runtime_checkable
class Summarizes(Protocol):
    """A task whose metrics need a few numbers of each sample, and not the outputs: an evaluation then keeps these
    alone."""

    def summary(self, outputs: Any, targets: Any) -> Any:
        """What is kept of a batch for `metrics`: tensors [n, ...], lists of n, or tuples and dicts of these. If they
        are counts, or computed for each sample by itself, the metrics are the same at any world size."""


@runtime_checkable
class Draws(Protocol):
    """A task whose predictions and targets are pictures, such as masks and boxes."""

    def draw(self, image: Tensor, value: Any) -> Tensor:
        """uint8 [3, H, W]: the prediction or the target of one sample on its image, uint8 [3, H, W]."""


@runtime_checkable
class HasClassRows(Protocol):
    """A task of the kind "other" with a table of its classes."""

    def class_rows(self, results: Results) -> list[dict[str, Any]]:
        """A row of metrics for each class: "name", and numbers or None by their names."""


@runtime_checkable
class HasSampleRows(Protocol):
    """A task of the kind "other" with a table of its samples."""

    def sample_rows(self, results: Results) -> list[dict[str, Any]]:
        """A row for each sample: numbers, texts or None by their names."""


@runtime_checkable
class FeedsMetrics(Protocol):
    """A task that decides what the metrics in `evaluation.metrics` are updated with."""

    def metric_inputs(self, outputs: Any, targets: Any) -> tuple[Any, Any]:
        """Predictions and targets of a batch, as the metric's `update` takes them."""


def worst_among(task: Task, results: Results, candidates: Tensor, most: int) -> list[WorstSample]:
    """The samples among `candidates` (bool [n]) with the largest losses, titled by prediction and target."""
    indices = candidates.nonzero().flatten()
    worst = indices[results.mean_losses[indices].argsort(descending=True, stable=True)][:most]
    predictions = task.predictions(results.outputs)
    return [WorstSample(index, f"predicted {task.to_text(predictions[index])}\nactual "
                               f"{task.to_text(results.targets[index])}") for index in worst.tolist()]


def name_of(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)
