"""Classification: one class of several for each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.trainers.tasks.losses import mean, one_each, per_sample
from drumbeat.trainers.tasks.task import Kind, Results, WorstSample, name_of, worst_among


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
            return one_each(self.binary_loss(outputs.float().flatten(), targets.float()), outputs)
        return one_each(self.loss(outputs.float(), targets), outputs)

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
        return worst_among(self, results, self.predictions(results.outputs) != results.targets, most)

    def predictions(self, outputs: Tensor) -> Tensor:
        return (outputs.flatten() > 0).long() if _is_one(outputs) else outputs.argmax(1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """From logits, or from log-probabilities, whose softmax is the probabilities."""
        if not _is_one(outputs):
            return outputs.float().softmax(1)
        logits = outputs.float().flatten()
        return torch.stack([(-logits).sigmoid(), logits.sigmoid()], dim=1)

    def to_text(self, value: Tensor) -> str:
        return name_of(self.output_names, int(value))


def _is_one(outputs: Tensor) -> bool:
    """Whether the model has one output for each sample."""
    return outputs.dim() == 1 or outputs.shape[1] == 1
