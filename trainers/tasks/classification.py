"""Classification: one class of several for each sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from drumbeat.trainers.tasks.losses import mean, one_each, per_sample
from drumbeat.trainers.tasks.outputs import main_output
from drumbeat.trainers.tasks.task import Kind, Results, WorstSample, name_of, worst_among

WEIGHTED = (nn.NLLLoss, nn.CrossEntropyLoss)

NO_CLASS = -2**62
"""A number that no target has."""


class Classification:
    """One class of several for each sample: outputs [n, classes], targets int64 [n]. Or for each of its elements, such
    as the pixels of an image or the words of a text: outputs [n, classes, ...], targets int64 [n, ...].

    With two classes the model may also have one output, [n], [n, 1] or [n, 1, ...]: the logit of the second class. A
    model may return a structure (`outputs.main_output`). `class_dim` is the dimension of the classes in its output: 1,
    as in torch's losses, or -1, as Hugging Face's models for texts have it.

    `loss` is any torch loss with a `reduction`; by default cross-entropy on logits (log-softmax followed by the
    negative log-likelihood), or its binary form for one output. If it has a `weight` for each class, or an
    `ignore_index`, the mean loss is torch's mean over what counts in the whole batch. Elements with the target
    `ignore_index` (-100 by default) do not count in metrics either. To leave out whole samples so, name the loss in the
    config. Metrics: loss, accuracy.
    """

    kind: Kind = "classification"
    metric_names: tuple[str, ...] = ("loss", "accuracy")
    worst_title = "misclassified samples, largest loss first"

    def __init__(self, *, loss: Any = None, classes: Sequence[str] = (), class_dim: int = 1) -> None:
        self.loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.CrossEntropyLoss())
        self.default_loss = None if loss else self.loss
        """With it each target of a sample must be a class, so that no sum is computed over the ranks in each step."""
        self.binary_loss: Callable[[Tensor, Tensor], Tensor] = per_sample(loss or nn.BCEWithLogitsLoss())
        self.output_names = list(classes)
        self.class_dim = class_dim

    @property
    def ignore_index(self) -> int | None:
        """The target that does not count; None if the loss has none."""
        return getattr(self.loss, "ignore_index", None)

    def select(self, outputs: Any) -> Tensor:
        found = main_output(outputs)
        return found if self.class_dim == 1 or found.dim() == 1 else found.movedim(self.class_dim, 1)

    def losses(self, outputs: Any, targets: Tensor) -> Tensor:
        found = self.select(outputs).float()
        if targets.dim() > 1 and not targets.is_floating_point():
            return self._element_losses(found, targets).flatten(1).sum(1)
        if _is_one(found):
            return one_each(self.binary_loss(found.flatten(), targets.float()), found)
        if self.loss is self.default_loss:
            return functional.cross_entropy(found, targets, reduction="none", ignore_index=NO_CLASS)
        return one_each(self.loss(found, targets), found)

    def _element_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """float32 [n, ...]: 0 for those that do not count. Raises `ValueError` if the shapes do not fit."""
        if outputs.shape[:1] + outputs.shape[2:] != targets.shape:
            last = "; they seem to be in the last one, for which the task needs class_dim: -1" * (
                outputs.shape[:-1] == targets.shape)
            raise ValueError(f"for targets {list(targets.shape)} the outputs must be [n, classes, ...], with the "
                             f"classes in dimension 1, and they are {list(outputs.shape)}{last}")
        if not _is_one(outputs):
            return self.loss(outputs, targets)
        losses = self.binary_loss(outputs.squeeze(1), targets.float())
        return losses if self.ignore_index is None else losses.where(self.counted(targets), 0)

    def counted(self, targets: Tensor) -> Tensor:
        """bool, in the shape of the targets: which of them count."""
        if self.ignore_index is None:
            return torch.ones_like(targets, dtype=torch.bool)
        return targets != self.ignore_index

    def weights(self, targets: Tensor) -> Tensor | None:
        """What each sample counts in the mean loss: the number of its elements, or the sum of the weights of their
        classes, by which torch divides. None if each counts the same."""
        if targets.is_floating_point() or (self.loss is self.default_loss and targets.dim() == 1):
            return None
        weighted = isinstance(self.loss, WEIGHTED) and self.loss.weight is not None
        if targets.dim() == 1 and self.ignore_index is None and not weighted:
            return None
        counted = self.counted(targets)
        values = counted.float()
        if isinstance(self.loss, WEIGHTED) and self.loss.weight is not None:
            values = self.loss.weight.to(targets.device)[targets.where(counted, 0)].where(counted, 0)
        return values.flatten(1).sum(1) if values.dim() > 1 else values

    def metrics(self, results: Results) -> dict[str, float]:
        predictions = self.predictions(results.outputs)
        if predictions.shape != results.targets.shape:
            raise ValueError(f"the targets {list(results.targets.shape)} are not one class number for each sample, "
                             f"int64 {list(predictions.shape)}")
        counted = self.counted(results.targets)
        correct, total = int(((predictions == results.targets) & counted).sum()), int(counted.sum())
        return {"loss": mean(results.losses, results.weights),
                "accuracy": correct / total if total else math.nan}

    def worst_samples(self, results: Results, most: int) -> list[WorstSample]:
        wrong = (self.predictions(results.outputs) != results.targets) & self.counted(results.targets)
        return worst_among(self, results, wrong.flatten(1).any(1) if wrong.dim() > 1 else wrong, most)

    def elements(self, results: Results) -> Results:
        """The results of the m elements that count, as of m samples, without their losses."""
        counted = self.counted(results.targets)
        if results.targets.dim() == 1 and counted.all():  # without a copy
            return Results(results.losses[:0], results.outputs, results.targets)
        outputs = results.outputs if results.outputs.dim() == 1 else results.outputs.movedim(1, -1)
        return Results(results.losses[:0], outputs[counted], results.targets[counted])

    def metric_inputs(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [m, classes], also of one output, and targets int64 [m], of all m elements that count."""
        return self.probabilities(outputs).movedim(1, -1)[counted := self.counted(targets)], targets[counted].long()

    def predictions(self, outputs: Tensor) -> Tensor:
        if not _is_one(outputs):
            return outputs.argmax(1)
        return (outputs.squeeze(1) > 0).long() if outputs.dim() > 2 else (outputs.flatten() > 0).long()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """From logits, or from log-probabilities, whose softmax is the probabilities."""
        if not _is_one(outputs):
            return outputs.float().softmax(1)
        logits = outputs.float().squeeze(1) if outputs.dim() > 2 else outputs.float().flatten()
        return torch.stack([(-logits).sigmoid(), logits.sigmoid()], dim=1)

    def to_text(self, value: Tensor) -> str:
        numbers = value.flatten().tolist()
        return " ".join("-" if number == self.ignore_index else name_of(self.output_names, int(number))
                        for number in numbers)


def _is_one(outputs: Tensor) -> bool:
    """Whether the model has one output for each sample."""
    return outputs.dim() == 1 or outputs.shape[1] == 1
