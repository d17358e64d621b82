"""What the outputs of a model mean: its loss, its metrics, its pictures. One class for each kind of task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn


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


class Mistake(NamedTuple):
    """A sample worth looking at, and what to write above it."""

    sample: int
    title: str


class Task(Protocol):
    """What the loop asks of a task. Metrics always hold "loss"."""

    measures: tuple[str, ...]
    """The names of its metrics."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor: ...

    def metrics(self, results: Results) -> dict[str, float]: ...

    def mistakes(self, results: Results, most: int) -> list[Mistake]: ...


class Classification:
    """One class of several for each sample: outputs [n, classes], targets int64 [n].

    `loss` is any torch loss with a `reduction`; cross-entropy on logits where none is given, which is log-softmax
    followed by the negative log-likelihood. Metrics: loss, accuracy.
    """

    measures = ("loss", "accuracy")

    def __init__(self, *, loss: Any = None, classes: Sequence[str] = ()) -> None:
        self.loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.CrossEntropyLoss())
        self.classes = list(classes)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """float32 [n]: the loss of each sample."""
        return self.loss(outputs.float(), targets)

    def metrics(self, results: Results) -> dict[str, float]:
        right = int((results.outputs.argmax(1) == results.targets).sum())
        return {"loss": mean(results.losses), "accuracy": right / len(results.targets)}

    def mistakes(self, results: Results, most: int) -> list[Mistake]:
        """The misclassified samples of largest loss, worst first."""
        predicted = results.outputs.argmax(1)
        wrong = (predicted != results.targets).nonzero().flatten()
        worst = wrong[results.losses[wrong].argsort(descending=True, stable=True)][:most]
        return [Mistake(index, f"{self._name(predicted[index])} / {self._name(results.targets[index])}")
                for index in worst.tolist()]

    def _name(self, number: Tensor) -> str:
        return self.classes[int(number)] if int(number) < len(self.classes) else str(int(number))


def per_sample(loss: Any) -> Any:
    """A torch loss set to one value per sample: scaling by the global batch is the loop's business."""
    if not hasattr(loss, "reduction"):
        raise ValueError(f"a loss needs torch's `reduction` argument; {type(loss).__name__} has none")
    loss.reduction = "none"
    return loss


def mean(losses: Tensor) -> float:
    """The mean of float32 [n] as a float64 that does not depend on the order of summation."""
    return math.fsum(losses.to(torch.float64).numpy()) / len(losses) if len(losses) else math.nan


