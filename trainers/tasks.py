"""What the outputs of a model mean: its loss, its metrics, its pictures. One class for each kind of task.

    Classification    one class of several            targets int64 [n]
    MultiLabel        any number of labels            targets 0 or 1, float32 [n, labels]
    Regression        one or several numbers          targets float32 [n, values] or [n]

Metrics are computed from a whole set at once, on one thread: the same to the last bit on any number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from drumbeat.data.loader import one_thread

Kind = Literal["classification", "multilabel", "regression"]


class Results(NamedTuple):
    """An evaluated set, sample by sample in the order of the set; the same on every rank and at any width."""

    losses: Tensor
    """float32 [n]."""
    outputs: Tensor
    """float32 [n, ...]."""
    targets: Tensor
    """As the set gives them, [n, ...]."""
    samples: Tensor | None = None
    """int64 [n]: their numbers in the set, where some could not be read and were left out; None for 0 to n - 1."""

    @property
    def numbers(self) -> list[int]:
        """The number of each in the set."""
        return list(range(len(self.losses))) if self.samples is None else [int(number) for number in self.samples]


class Mistake(NamedTuple):
    """A sample worth looking at, and what to write above it, in two lines."""

    sample: int
    title: str


class Task(Protocol):
    """What training, evaluating and predicting ask of a task. Metrics always hold "loss".

    It may also have `weights(targets) -> float32 [n] or None`: what each sample counts for in the mean loss, where not
    all count alike. The mean of a batch is then the sum of `losses` over the sum of these.
    """

    kind: Kind
    """What sort of answer the outputs are, for who draws or prints them."""
    measures: tuple[str, ...]
    """The names of its metrics."""
    columns: list[str]
    """The names of the classes, of the labels or of the values, in the order of the outputs; empty where unknown."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """float32 [n]: the loss of each sample."""

    def metrics(self, results: Results) -> dict[str, float]:
        """The metrics of an evaluated set, by the names in `measures`."""

    def mistakes(self, results: Results, most: int) -> list[Mistake]:
        """At most so many samples that the model is wrong about, worst first."""

    def predicted(self, outputs: Tensor) -> Tensor:
        """The answer for each sample: int64 [n], bool [n, labels] or float32 [n, values]."""

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """float32 [n, classes or labels], in the order of `columns`; None for a regression."""

    def named(self, answer: Tensor) -> str:
        """One sample's answer, or its target, in words."""


class Classification:
    """One class of several for each sample: outputs [n, classes], targets int64 [n].

    With two classes the model may also have one output, [n] or [n, 1]: the logit of the second one.

    `loss` is any torch loss with a `reduction`. Where none is given it is cross-entropy on logits, which is log-softmax
    followed by the negative log-likelihood; and its binary form for one output. Classes may have a `weight` there: the
    mean loss is then torch's weighted one, over the whole batch. Metrics: loss, accuracy.
    """

    kind: Kind = "classification"
    measures: tuple[str, ...] = ("loss", "accuracy")

    def __init__(self, *, loss: Any = None, classes: Sequence[str] = ()) -> None:
        self.loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.CrossEntropyLoss())
        self.binary_loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.BCEWithLogitsLoss())
        self.columns = list(classes)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if _is_one(outputs):
            return _one_each(self.binary_loss(outputs.float().flatten(), targets.float()), outputs)
        return _one_each(self.loss(outputs.float(), targets), outputs)

    def weights(self, targets: Tensor) -> Tensor | None:
        """Those of the targets' classes, where NLLLoss or CrossEntropyLoss has some: torch divides by their sum."""
        if not isinstance(self.loss, nn.NLLLoss | nn.CrossEntropyLoss) or self.loss.weight is None:
            return None
        ignored = targets == self.loss.ignore_index
        return self.loss.weight.to(targets.device)[targets.masked_fill(ignored, 0)].masked_fill(ignored, 0)

    def metrics(self, results: Results) -> dict[str, float]:
        right = int((self.predicted(results.outputs) == results.targets).sum())
        return {"loss": mean(results.losses, self.weights(results.targets)), "accuracy": right / len(results.targets)}

    def mistakes(self, results: Results, most: int) -> list[Mistake]:
        return _worst(self, results, self.predicted(results.outputs) != results.targets, most)

    def predicted(self, outputs: Tensor) -> Tensor:
        return (outputs.flatten() > 0).long() if _is_one(outputs) else outputs.argmax(1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Of logits, and of logarithms of probabilities, which are their own logits."""
        if not _is_one(outputs):
            return outputs.float().softmax(1)
        logits = outputs.float().flatten()
        return torch.stack([(-logits).sigmoid(), logits.sigmoid()], dim=1)

    def named(self, answer: Tensor) -> str:
        return _name(self.columns, int(answer))


class MultiLabel:
    """Any number of labels for each sample: outputs are logits [n, labels] (or [n] for one label), targets 0 or 1 of
    the same shape. A label is predicted from a probability of one half on.

    `loss` is any torch loss with a `reduction`, binary cross-entropy on logits where none is given; a sample's loss is
    the mean over its labels. Metrics: loss, accuracy (samples with every label right), hamming (the share of labels
    that are right), f1 (the mean over labels of each one's F1; 0 for a label that is neither there nor predicted).
    """

    kind: Kind = "multilabel"
    measures: tuple[str, ...] = ("loss", "accuracy", "hamming", "f1")

    def __init__(self, *, loss: Any = None, classes: Sequence[str] = ()) -> None:
        self.loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.BCEWithLogitsLoss())
        self.columns = list(classes)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        rows, wanted = _matching(outputs, targets)
        return _one_each(_rows(self.loss(rows, wanted)).mean(1), outputs)

    def metrics(self, results: Results) -> dict[str, float]:
        from torchmetrics.functional.classification import binary_stat_scores  # seconds to import

        predicted, wanted = _matching(self.predicted(results.outputs), results.targets)
        counts = [binary_stat_scores(*label).tolist()
                  for label in zip(predicted.long().T, wanted.long().T, strict=True)]
        f1 = [2 * hits / max(1, 2 * hits + alarms + misses) for hits, alarms, _, misses, _ in counts]
        right = sum(hits + rejections for hits, _, rejections, _, _ in counts)
        exact = int((predicted == wanted).all(1).sum())
        return {"loss": mean(results.losses), "accuracy": exact / len(wanted),
                "hamming": right / wanted.numel(), "f1": math.fsum(f1) / len(f1)}

    def mistakes(self, results: Results, most: int) -> list[Mistake]:
        predicted, wanted = _matching(self.predicted(results.outputs), results.targets)
        return _worst(self, results, (predicted != wanted).any(1), most)

    def predicted(self, outputs: Tensor) -> Tensor:
        return _rows(outputs) >= 0

    def probabilities(self, outputs: Tensor) -> Tensor:
        return _rows(outputs).float().sigmoid()

    def named(self, answer: Tensor) -> str:
        there = answer.flatten().nonzero().flatten().tolist()
        return " + ".join(_name(self.columns, number) for number in there) or "none"


class Regression:
    """One or several numbers for each sample: outputs [n, values] (or [n] for one), targets float of the same shape.

    `loss` is any torch loss with a `reduction`, the squared error where none is given; a sample's loss is the mean over
    its values. Metrics: loss, mae (mean absolute error), rmse (root of the mean squared error), both over all values,
    and r2 (the share of the variance that is explained, mean over the values; NaN for fewer than two samples).
    """

    kind: Kind = "regression"
    measures: tuple[str, ...] = ("loss", "mae", "rmse", "r2")

    def __init__(self, *, loss: Any = None, values: Sequence[str] = ()) -> None:
        self.loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.MSELoss())
        self.columns = list(values)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        rows, wanted = _matching(outputs, targets)
        return _one_each(_rows(self.loss(rows, wanted)).mean(1), outputs)

    def metrics(self, results: Results) -> dict[str, float]:
        from torchmetrics.functional import regression  # seconds to import

        predicted, wanted = (values.double() for values in _matching(results.outputs, results.targets))
        with one_thread():
            return {"loss": mean(results.losses),
                    "mae": float(regression.mean_absolute_error(predicted.flatten(), wanted.flatten())),
                    "rmse": float(regression.mean_squared_error(predicted.flatten(), wanted.flatten(), squared=False)),
                    "r2": float(regression.r2_score(predicted, wanted)) if len(wanted) > 1 else math.nan}

    def mistakes(self, results: Results, most: int) -> list[Mistake]:
        return _worst(self, results, torch.ones(len(results.losses), dtype=torch.bool), most)

    def predicted(self, outputs: Tensor) -> Tensor:
        return _rows(outputs).float()

    def probabilities(self, outputs: Tensor) -> None:
        return None

    def named(self, answer: Tensor) -> str:
        return ", ".join(f"{value:.4g}" for value in answer.flatten().tolist())


def per_sample(loss: Any) -> Any:
    """A torch loss set to one value per sample: scaling by the global batch is the loop's business."""
    if not hasattr(loss, "reduction"):
        raise ValueError(f"a loss needs torch's `reduction` argument; {type(loss).__name__} has none")
    loss.reduction = "none"
    return loss


def mean(losses: Tensor, weights: Tensor | None = None) -> float:
    """The sum of float32 [n] over n, or over the sum of the weights that they hold, float32 [n]: a float64 that does
    not depend on the order of summation. NaN for none, and where all weights are 0."""
    whole = len(losses) if weights is None else math.fsum(weights.to(torch.float64).numpy())
    return math.fsum(losses.to(torch.float64).numpy()) / whole if whole else math.nan


def _is_one(outputs: Tensor) -> bool:
    """Whether the model has one output for each sample."""
    return outputs.dim() == 1 or outputs.shape[1] == 1


def _rows(values: Tensor) -> Tensor:
    """[n] or [n, ...] as [n, values]."""
    return values.flatten(1) if values.dim() > 1 else values[:, None]


def _matching(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32 [n, values]. Raises ValueError where they differ: torch would stretch one to fit the other."""
    rows, wanted = _rows(outputs).float(), _rows(targets).float()
    if rows.shape != wanted.shape:
        raise ValueError(f"the model gives {rows.shape[1]} outputs for each sample, the data has {wanted.shape[1]}")
    return rows, wanted


def _one_each(losses: Tensor, outputs: Tensor) -> Tensor:
    """The losses, if they are one for each sample. Raises ValueError where a loss takes its inputs otherwise."""
    if losses.shape != outputs.shape[:1]:
        raise ValueError(f"the loss of outputs {list(outputs.shape)} has the shape {list(losses.shape)}; this task "
                         f"needs one value for each sample")
    return losses


def _worst(task: Task, results: Results, wrong: Tensor, most: int) -> list[Mistake]:
    """Those of the samples `wrong` (bool [n]) with the largest losses, titled by what is predicted and what is so."""
    numbers = wrong.nonzero().flatten()
    worst = numbers[results.losses[numbers].argsort(descending=True, stable=True)][:most]
    answers = task.predicted(results.outputs)
    return [Mistake(number, f"predicted {task.named(answers[number])}\nactual {task.named(results.targets[number])}")
            for number in worst.tolist()]


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)
