"""Tasks: what the outputs of a model mean, its loss and its metrics. One class for each kind of task.

    Classification    one class of several            targets int64 [n]
    MultiLabel        any number of labels            targets 0 or 1, float32 [n, labels]
    Regression        one or several numbers          targets float32 [n, values] or [n]

Metrics are computed from a whole set at once, on one thread, so they are the same to the bit on any number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from drumbeat.data.loader import one_thread

Kind = Literal["classification", "multilabel", "regression"]


class Results(NamedTuple):
    """An evaluated set, sample by sample in the order of the set; the same on every rank and at any world size."""

    losses: Tensor
    """float32 [n]."""
    outputs: Tensor
    """float32 [n, ...]."""
    targets: Tensor
    """As the set gives them, [n, ...]."""
    subset: Tensor | None = None
    """int64 [n]: the indices of these samples in the set, if some could not be read and were left out; None for all."""

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

    A task may also have `weights(targets) -> float32 [n] or None`: the weight of each sample in the mean loss. The mean
    of a batch is then the sum of `losses` over the sum of the weights.
    """

    kind: Kind
    """Decides how predictions are drawn and printed."""
    metric_names: tuple[str, ...]
    """The names of the metrics."""
    output_names: list[str]
    """The names of the classes, labels or values, in the order of the outputs; empty if unknown."""
    worst_title: str
    """What `worst_samples` returns, as a title: "misclassified samples, largest loss first"."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """float32 [n]: the loss of each sample."""

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


class Classification:
    """One class of several for each sample: outputs [n, classes], targets int64 [n].

    With two classes the model may also have one output, [n] or [n, 1]: the logit of the second class.

    `loss` is any torch loss with a `reduction`; by default cross-entropy on logits (log-softmax followed by the
    negative log-likelihood), or its binary form for one output. If it has a `weight` for each class, the mean loss is
    torch's weighted mean over the whole batch. Metrics: loss, accuracy.
    """

    kind: Kind = "classification"
    metric_names: tuple[str, ...] = ("loss", "accuracy")
    worst_title = "misclassified samples, largest loss first"

    def __init__(self, *, loss: Any = None, classes: Sequence[str] = ()) -> None:
        self.loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.CrossEntropyLoss())
        self.binary_loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.BCEWithLogitsLoss())
        self.output_names = list(classes)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if _is_one(outputs):
            return _one_each(self.binary_loss(outputs.float().flatten(), targets.float()), outputs)
        return _one_each(self.loss(outputs.float(), targets), outputs)

    def weights(self, targets: Tensor) -> Tensor | None:
        """The weight of each target's class, if NLLLoss or CrossEntropyLoss has weights: torch divides by their sum."""
        if not isinstance(self.loss, nn.NLLLoss | nn.CrossEntropyLoss) or self.loss.weight is None:
            return None
        ignored = targets == self.loss.ignore_index
        return self.loss.weight.to(targets.device)[targets.masked_fill(ignored, 0)].masked_fill(ignored, 0)

    def metrics(self, results: Results) -> dict[str, float]:
        predictions = self.predictions(results.outputs)
        if predictions.shape != results.targets.shape:
            raise ValueError(f"the targets {list(results.targets.shape)} are not one class number for each sample, "
                             f"int64 {list(predictions.shape)}")
        correct = int((predictions == results.targets).sum())
        return {"loss": mean(results.losses, self.weights(results.targets)), "accuracy": correct / len(results.targets)}

    def worst_samples(self, results: Results, most: int) -> list[WorstSample]:
        return _worst(self, results, self.predictions(results.outputs) != results.targets, most)

    def predictions(self, outputs: Tensor) -> Tensor:
        return (outputs.flatten() > 0).long() if _is_one(outputs) else outputs.argmax(1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """From logits, or from log-probabilities, whose softmax is the probabilities."""
        if not _is_one(outputs):
            return outputs.float().softmax(1)
        logits = outputs.float().flatten()
        return torch.stack([(-logits).sigmoid(), logits.sigmoid()], dim=1)

    def to_text(self, value: Tensor) -> str:
        return _name(self.output_names, int(value))


class MultiLabel:
    """Any number of labels for each sample: outputs are logits [n, labels] (or [n] for one label), targets 0 or 1 of
    the same shape. A label is predicted if its probability is at least one half.

    `loss` is any torch loss with a `reduction`, by default binary cross-entropy on logits; the loss of a sample is the
    mean over its labels. Metrics: loss, accuracy (the fraction of samples with all labels correct), hamming (the
    fraction of labels that are correct), f1 (the mean of the labels' F1 scores; 0 for a label that is neither present
    nor predicted).
    """

    kind: Kind = "multilabel"
    metric_names: tuple[str, ...] = ("loss", "accuracy", "hamming", "f1")
    worst_title = "samples with wrong labels, largest loss first"

    def __init__(self, *, loss: Any = None, classes: Sequence[str] = ()) -> None:
        self.loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.BCEWithLogitsLoss())
        self.output_names = list(classes)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        rows, expected = _matching(outputs, targets)
        return _one_each(_rows(self.loss(rows, expected)).mean(1), outputs)

    def metrics(self, results: Results) -> dict[str, float]:
        from torchmetrics.functional.classification import binary_stat_scores  # seconds to import

        predicted, expected = _matching(self.predictions(results.outputs), results.targets)
        counts = [binary_stat_scores(*label).tolist()
                  for label in zip(predicted.long().T, expected.long().T, strict=True)]
        f1 = [2 * hits / max(1, 2 * hits + alarms + misses) for hits, alarms, _, misses, _ in counts]
        correct = sum(hits + rejections for hits, _, rejections, _, _ in counts)
        exact = int((predicted == expected).all(1).sum())
        return {"loss": mean(results.losses), "accuracy": exact / len(expected),
                "hamming": correct / expected.numel(), "f1": math.fsum(f1) / len(f1)}

    def worst_samples(self, results: Results, most: int) -> list[WorstSample]:
        predicted, expected = _matching(self.predictions(results.outputs), results.targets)
        return _worst(self, results, (predicted != expected).any(1), most)

    def predictions(self, outputs: Tensor) -> Tensor:
        return _rows(outputs) >= 0

    def probabilities(self, outputs: Tensor) -> Tensor:
        return _rows(outputs).float().sigmoid()

    def to_text(self, value: Tensor) -> str:
        present = value.flatten().nonzero().flatten().tolist()
        return " + ".join(_name(self.output_names, number) for number in present) or "none"


class Regression:
    """One or several numbers for each sample: outputs [n, values] (or [n] for one), targets float of the same shape.

    `loss` is any torch loss with a `reduction`, by default the squared error; the loss of a sample is the mean over its
    values. Metrics: loss, mae (mean absolute error), rmse (root of the mean squared error), both over all values, and
    r2 (the fraction of the variance that is explained, averaged over the values; NaN for fewer than two samples).
    """

    kind: Kind = "regression"
    metric_names: tuple[str, ...] = ("loss", "mae", "rmse", "r2")
    worst_title = "worst predictions, largest loss first"

    def __init__(self, *, loss: Any = None, values: Sequence[str] = ()) -> None:
        self.loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.MSELoss())
        self.output_names = list(values)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        rows, expected = _matching(outputs, targets)
        return _one_each(_rows(self.loss(rows, expected)).mean(1), outputs)

    def metrics(self, results: Results) -> dict[str, float]:
        from torchmetrics.functional import regression  # seconds to import

        predicted, expected = (values.double() for values in _matching(results.outputs, results.targets))
        with one_thread():
            return {"loss": mean(results.losses),
                    "mae": float(regression.mean_absolute_error(predicted.flatten(), expected.flatten())),
                    "rmse": float(regression.mean_squared_error(predicted.flatten(), expected.flatten(),
                                                                squared=False)),
                    "r2": float(regression.r2_score(predicted, expected)) if len(expected) > 1 else math.nan}

    def worst_samples(self, results: Results, most: int) -> list[WorstSample]:
        return _worst(self, results, torch.ones(len(results.losses), dtype=torch.bool), most)

    def predictions(self, outputs: Tensor) -> Tensor:
        return _rows(outputs).float()

    def probabilities(self, outputs: Tensor) -> None:
        return None

    def to_text(self, value: Tensor) -> str:
        return ", ".join(f"{number:.4g}" for number in value.flatten().tolist())


def per_sample(loss: Any) -> Any:
    """The loss, set to return one value for each sample; the training step scales by the global batch size. Raises
    `ValueError`."""
    if not hasattr(loss, "reduction"):
        raise ValueError(f"the loss {type(loss).__name__} has no attribute `reduction`, as torch's losses do")
    loss.reduction = "none"
    return loss


def mean(losses: Tensor, weights: Tensor | None = None) -> float:
    """The mean of float32 [n]: the sum over n, or over the sum of the weights (float32 [n]) that the losses already
    include. A float64 that does not depend on the order of summation. NaN for no samples, and if all weights are 0."""
    whole = len(losses) if weights is None else math.fsum(weights.to(torch.float64).numpy())
    return math.fsum(losses.to(torch.float64).numpy()) / whole if whole else math.nan


def _is_one(outputs: Tensor) -> bool:
    """Whether the model has one output for each sample."""
    return outputs.dim() == 1 or outputs.shape[1] == 1


def _rows(values: Tensor) -> Tensor:
    """[n] or [n, ...] as [n, values]."""
    return values.flatten(1) if values.dim() > 1 else values[:, None]


def _matching(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32 [n, values]. Raises `ValueError` if their shapes differ: torch would broadcast one to fit."""
    rows, expected = _rows(outputs).float(), _rows(targets).float()
    if rows.shape != expected.shape:
        raise ValueError(f"the model has {rows.shape[1]} outputs for each sample, the data has {expected.shape[1]}")
    return rows, expected


def _one_each(losses: Tensor, outputs: Tensor) -> Tensor:
    """The losses. Raises `ValueError` if they are not one for each sample."""
    if losses.shape != outputs.shape[:1]:
        raise ValueError(f"the loss of outputs {list(outputs.shape)} has the shape {list(losses.shape)}; this task "
                         f"needs one value for each sample")
    return losses


def _worst(task: Task, results: Results, candidates: Tensor, most: int) -> list[WorstSample]:
    """The samples among `candidates` (bool [n]) with the largest losses, titled by prediction and target."""
    indices = candidates.nonzero().flatten()
    worst = indices[results.losses[indices].argsort(descending=True, stable=True)][:most]
    predictions = task.predictions(results.outputs)
    return [WorstSample(index, f"predicted {task.to_text(predictions[index])}\nactual "
                               f"{task.to_text(results.targets[index])}") for index in worst.tolist()]


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)
