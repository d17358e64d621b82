"""All metrics of an evaluated set: overall, and for each class, label or value.

They are computed from all samples at once, most by torchmetrics, so they are the same on any number of ranks. A metric
that is not defined, such as the AUROC of a class without samples, is None. Importing this module takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional import classification as of_classes
from torchmetrics.functional import regression as of_values

from drumbeat.configs.run.checkpoint_records import Metrics
from drumbeat.trainers.tasks.classification import Classification
from drumbeat.trainers.tasks.losses import known_mean
from drumbeat.trainers.tasks.task import HasClassRows, Results, Task


@torch.no_grad()
def measure(task: Task, results: Results) -> Metrics:
    """The metrics of all samples, and of each class, label or value."""
    metrics = {**results.terms, **task.metrics(results), **results.metrics}
    if task.kind == "other":
        own = task.class_rows(results) if isinstance(task, HasClassRows) else []
        return Metrics(kind=task.kind, metrics=_plain(metrics), classes=own)
    if isinstance(task, Classification):
        results = task.elements(results)
    probabilities = task.probabilities(results.outputs)
    if probabilities is None:
        predicted = task.predictions(results.outputs)
        rows = _values(task, predicted.double(), results.targets.double().view_as(predicted))
        return Metrics(kind=task.kind, metrics=_plain(metrics), classes=rows)
    if task.kind == "multilabel":
        rows = _labels(task, probabilities, task.predictions(results.outputs), results.targets.view_as(probabilities))
        return Metrics(kind=task.kind, metrics=_plain(metrics | _means(rows, "auroc", "average_precision")),
                       classes=rows)
    predicted, targets, count = task.predictions(results.outputs), results.targets.long(), probabilities.shape[1]
    confusion = of_classes.multiclass_confusion_matrix(predicted, targets, count)
    rows = _classes(task, probabilities, predicted, targets, confusion)
    metrics |= {"balanced_accuracy": known_mean(row["accuracy"] for row in rows), **_means(rows, "f1", "auroc")}
    if count > 5:
        metrics["top5_accuracy"] = float((probabilities.topk(5).indices == targets[:, None]).any(1).double().mean())
    highest = probabilities.amax(1)
    metrics["calibration_error"] = float(of_classes.binary_calibration_error(highest, (predicted == targets).long()))
    return Metrics(kind=task.kind, metrics=_plain(metrics), classes=rows, confusion=confusion.tolist())


def _classes(task: Task, probabilities: Tensor, predicted: Tensor, targets: Tensor,
             confusion: Tensor) -> list[dict[str, Any]]:
    count = probabilities.shape[1]
    precision, recall, f1 = (one(predicted, targets, count, average="none").tolist() for one in (
        of_classes.multiclass_precision, of_classes.multiclass_recall, of_classes.multiclass_f1_score))
    rows = []
    for number in range(count):
        samples, correct = int(confusion[number].sum()), int(confusion[number, number])
        rows.append({"name": task.to_text(torch.tensor(number)), "samples": samples, "correct": correct,
                     "accuracy": correct / samples if samples else None, "precision": precision[number],
                     "recall": recall[number] if samples else None, "f1": f1[number] if samples else None,
                     **_ranking(probabilities[:, number], targets == number)})
    return rows


def _labels(task: Task, probabilities: Tensor, predicted: Tensor, targets: Tensor) -> list[dict[str, Any]]:
    rows = []
    for number in range(probabilities.shape[1]):
        guess, truth = predicted[:, number].long(), targets[:, number].long()
        correct = int((guess == truth).sum())
        rows.append({"name": _column(task, number), "samples": len(truth), "positive": int(truth.sum()),
                     "correct": correct, "accuracy": correct / len(truth),
                     "precision": float(of_classes.binary_precision(guess, truth)),
                     "recall": float(of_classes.binary_recall(guess, truth)) if truth.any() else None,
                     "f1": float(of_classes.binary_f1_score(guess, truth)) if truth.any() else None,
                     **_ranking(probabilities[:, number], truth.bool())})
    return rows


def _values(task: Task, predicted: Tensor, targets: Tensor) -> list[dict[str, Any]]:
    rows = []
    for number in range(predicted.shape[1]):
        guess, truth = predicted[:, number].contiguous(), targets[:, number].contiguous()
        varies = len(truth) > 1 and bool(truth.std() > 0) and bool(guess.std() > 0)
        rows.append({"name": _column(task, number), "samples": len(truth),
                     "mae": float(of_values.mean_absolute_error(guess, truth)),
                     "rmse": float(of_values.mean_squared_error(guess, truth, squared=False)),
                     "largest_error": float((guess - truth).abs().max()),
                     "mean_error": float((guess - truth).mean()),
                     "r2": float(of_values.r2_score(guess, truth)) if varies else None,
                     "correlation": float(of_values.pearson_corrcoef(guess, truth)) if varies else None})
    return rows


def _ranking(scores: Tensor, positive: Tensor) -> dict[str, float | None]:
    """How well the probabilities of a class separate its samples from the others: the area under the ROC curve, by the
    trapezoidal rule, and the average precision (scikit-learn's definitions). Equal scores are one threshold.

    Sorting integers that order as the scores do, with the truth in the last bit, takes a tenth of the time of
    torchmetrics, which computes the same.
    """
    if not positive.any() or positive.all():
        return {"auroc": None, "average_precision": None}
    bits = scores.float().numpy().view(np.int32).astype(np.int64)
    ordered = np.sort((bits ^ ((bits >> 31) & 0x7FFFFFFF)) << 1 | positive.numpy())[::-1]
    last = np.append(np.flatnonzero(np.diff(ordered >> 1)), len(ordered) - 1)  # at or above each threshold
    hits = (ordered & 1).cumsum()[last]
    misses = last + 1 - hits
    more_hits, more_misses = np.diff(hits, prepend=0), np.diff(misses, prepend=0)
    area = (more_misses * (2 * hits - more_hits)).sum() / (2 * hits[-1] * misses[-1])
    return {"auroc": float(area), "average_precision": float((more_hits * hits / (last + 1)).sum() / hits[-1])}


def _column(task: Task, number: int) -> str:
    return task.output_names[number] if number < len(task.output_names) else str(number)


def _means(rows: Sequence[dict[str, Any]], *names: str) -> dict[str, float]:
    """The mean of each column over the rows in which it is defined."""
    return {name: known_mean(row[name] for row in rows) for name in names}


def _plain(metrics: dict[str, float]) -> dict[str, float | None]:
    """For JSON: None in place of NaN and Inf."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
