"""Multi-label classification: any number of labels for each sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from drumbeat.trainers.tasks.losses import matching, mean, one_each, per_sample, rows
from drumbeat.trainers.tasks.task import Kind, Results, WorstSample, name_of, worst_among


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
        values, expected = matching(outputs, targets)
        return one_each(rows(self.loss(values, expected)).mean(1), outputs)

    def metrics(self, results: Results) -> dict[str, float]:
        from torchmetrics.functional.classification import binary_stat_scores  # seconds to import

        predicted, expected = matching(self.predictions(results.outputs), results.targets)
        counts = [binary_stat_scores(*label).tolist()
                  for label in zip(predicted.long().T, expected.long().T, strict=True)]
        f1 = [2 * hits / max(1, 2 * hits + alarms + misses) for hits, alarms, _, misses, _ in counts]
        correct = sum(hits + rejections for hits, _, rejections, _, _ in counts)
        exact = int((predicted == expected).all(1).sum())
        return {"loss": mean(results.losses), "accuracy": exact / len(expected),
                "hamming": correct / expected.numel(), "f1": math.fsum(f1) / len(f1)}

    def worst_samples(self, results: Results, most: int) -> list[WorstSample]:
        predicted, expected = matching(self.predictions(results.outputs), results.targets)
        return worst_among(self, results, (predicted != expected).any(1), most)

    def predictions(self, outputs: Tensor) -> Tensor:
        return rows(outputs) >= 0

    def probabilities(self, outputs: Tensor) -> Tensor:
        return rows(outputs).float().sigmoid()

    def to_text(self, value: Tensor) -> str:
        present = value.flatten().nonzero().flatten().tolist()
        return " + ".join(name_of(self.output_names, number) for number in present) or "none"
