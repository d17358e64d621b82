"""Metrics of resamples, as functions of how often each sample is drawn: all at once, without a copy of a sample.

A resample of n samples is a row of n counts. Sums over it are products of matrices; the area under the ROC curve is a
sum over the positive samples of the negative ones with lower scores. With each sample drawn once, the metrics are those
of `drumbeat evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drumbeat.trainers.inference.samples import KeptSamples

Floats = NDArray[np.float64]
Metrics = dict[str, Floats]
"""Values [r] of r resamples, by the name of the metric; NaN where one is undefined."""


@dataclass(frozen=True)
class Draws:
    """How often each of n samples is drawn in each of r resamples."""

    counts: NDArray[np.int32]
    """[r, n]."""

    @cached_property
    def single(self) -> NDArray[np.float32]:
        """For sums of whole numbers, which are exact up to 2**24."""
        return self.counts.astype(np.float32)

    @cached_property
    def double(self) -> Floats:
        """For other sums."""
        return self.counts.astype(np.float64)

    @cached_property
    def total(self) -> Floats:
        """[r]."""
        found: Floats = self.counts.sum(1).astype(np.float64)
        return found


Computed = Callable[[Draws], Metrics]

MOST_SUMMED = 32
"""With more classes, the samples of each are counted one resample after another, not as a product of matrices."""
LOWER_IS_BETTER = ("loss", "mae", "rmse")
"""Of all other metrics, more is better."""


def resampled_metrics(samples: KeptSamples) -> Computed:
    """The metrics of the samples' kind of task. Raises `ValueError` for another kind."""
    if samples.kind not in KINDS:
        raise ValueError(f"there are no metrics for samples of the kind {samples.kind}")
    arrays = samples.arrays
    own, losses = KINDS[samples.kind](arrays), np.asarray(arrays["losses"], dtype=np.float64)
    weights = np.asarray(arrays.get("weights", np.ones(len(losses))), dtype=np.float64)

    def compute(draws: Draws) -> Metrics:
        return {"loss": _ratio(draws.double @ losses, draws.double @ weights), **own(draws)}

    return compute


def _classification(arrays: Mapping[str, Any]) -> Computed:
    probabilities, targets, predictions = arrays.get("probabilities"), arrays["targets"], arrays["predictions"]
    classes = 1 + int(max(targets.max(), predictions.max())) if probabilities is None else probabilities.shape[1]
    of_classes = _classes_of({"correct": np.where(targets == predictions, targets, classes), "actual": targets,
                              "predicted": predictions}, classes)
    top5 = arrays["in_top5"].astype(np.float32) if "in_top5" in arrays else None
    ranked = [] if probabilities is None else [_Ranking(probabilities[:, number], targets == number)
                                               for number in range(classes)]

    def compute(draws: Draws) -> Metrics:
        counted = of_classes(draws)
        correct, actual, predicted = (counted[name] for name in ("correct", "actual", "predicted"))
        found = {"accuracy": _ratio(correct.sum(1), draws.total),
                 "balanced_accuracy": _mean(_ratio(correct, actual), actual > 0),
                 "f1": _mean(2 * correct / np.maximum(actual + predicted, 1), actual > 0), **_areas(ranked, draws)}
        return found if top5 is None else {**found, "top5_accuracy": _ratio(_exact(draws, top5), draws.total)}

    return compute


def _multilabel(arrays: Mapping[str, Any]) -> Computed:
    probabilities, targets, predictions = arrays.get("probabilities"), arrays["targets"], arrays["predictions"]
    labels = targets.shape[1]
    same = (targets == predictions).astype(np.float32)
    exact, both, either = same.all(1).astype(np.float32), (targets & predictions).astype(np.float32), (
        targets.astype(np.float32) + predictions)
    ranked = [] if probabilities is None else [_Ranking(probabilities[:, number], targets[:, number])
                                               for number in range(labels)]

    def compute(draws: Draws) -> Metrics:
        f1 = 2 * _exact(draws, both) / np.maximum(_exact(draws, either), 1)
        return {"accuracy": _ratio(_exact(draws, exact), draws.total),
                "hamming": _ratio(_exact(draws, same).sum(1), draws.total * labels), "f1": f1.mean(1),
                **_areas(ranked, draws)}

    return compute


def _regression(arrays: Mapping[str, Any]) -> Computed:
    targets, predictions = (np.asarray(arrays[name], dtype=np.float64) for name in ("targets", "predictions"))
    errors, centred = predictions - targets, targets - targets.mean(0)  # so that little is lost in the differences
    absolute, squared, values = np.abs(errors).mean(1), errors**2, targets.shape[1]

    def compute(draws: Draws) -> Metrics:
        counts, total = draws.double, draws.total
        squares = counts @ squared
        around_mean = counts @ centred**2 - (counts @ centred)**2 / total[:, None]
        return {"mae": _ratio(counts @ absolute, total), "rmse": np.sqrt(_ratio(squares.sum(1), total * values)),
                "r2": (1 - _ratio(squares, around_mean)).mean(1)}

    return compute


def _elements(arrays: Mapping[str, Any]) -> Computed:
    correct, counted = (np.asarray(arrays[name], dtype=np.float64) for name in ("correct", "counted"))
    return lambda draws: {"accuracy": _ratio(draws.double @ correct, draws.double @ counted)}


def _segmentation(arrays: Mapping[str, Any]) -> Computed:
    pixels = np.asarray(arrays["pixels"], dtype=np.float64)
    classes = pixels.shape[2]

    def compute(draws: Draws) -> Metrics:
        sums = (draws.double @ pixels.reshape(len(pixels), -1)).reshape(-1, 3, classes)
        correct, predicted, expected = sums[:, 0], sums[:, 1], sums[:, 2]
        unions = predicted + expected - correct
        return {"accuracy": _ratio(correct.sum(1), expected.sum(1)),
                "mean_iou": _mean(_ratio(correct, unions), unions > 0)}

    return compute


def _other(arrays: Mapping[str, Any]) -> Computed:
    """The mean of each of the task's own numbers, over the samples that have one."""
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()
               if name not in ("losses", "weights")}

    def compute(draws: Draws) -> Metrics:
        return {name: _ratio(draws.double @ np.nan_to_num(values), draws.double @ ~np.isnan(values))
                for name, values in columns.items()}

    return compute


KINDS: dict[str, Callable[[Mapping[str, Any]], Computed]] = {
    "classification": _classification, "multilabel": _multilabel, "regression": _regression, "elements": _elements,
    "segmentation": _segmentation, "other": _other}


class _Ranking:
    """The area under the ROC curve: the probability that a positive sample has a higher score than a negative one;
    equal scores count half (Hanley & McNeil 1982, Radiology 143:29)."""

    def __init__(self, scores: NDArray[Any], positive: NDArray[Any]) -> None:
        order = np.argsort(scores, kind="stable")
        self.positives, self.negatives = order[positive[order]], order[~positive[order]]
        ordered = scores[self.negatives]
        self.below, self.up_to = (np.searchsorted(ordered, scores[self.positives], side) for side in ("left", "right"))
        """Of each positive sample, the number of negative ones with lower scores, and with scores up to its own."""
        self.has_ties = bool((self.below != self.up_to).any())

    def __call__(self, draws: Draws) -> Floats:
        misses = np.zeros((len(draws.counts), len(self.negatives) + 1), dtype=np.int32)
        np.cumsum(np.take(draws.counts, self.negatives, axis=1), axis=1, out=misses[:, 1:])
        hits = np.take(draws.counts, self.positives, axis=1)
        pairs = _products(hits, np.take(misses, self.below, axis=1))
        if self.has_ties:
            pairs = (pairs + _products(hits, np.take(misses, self.up_to, axis=1))) / 2
        return _ratio(pairs, hits.sum(1) * misses[:, -1].astype(np.float64))


def _products(one: NDArray[np.int32], other: NDArray[np.int32]) -> Floats:
    """The sum of the products in each row, of two arrays [r, n]."""
    found: Floats = np.einsum("rn,rn->r", one, other, dtype=np.int64, casting="safe").astype(np.float64)
    return found


def _areas(ranked: list[_Ranking], draws: Draws) -> Metrics:
    """The mean area over the classes or labels that have one."""
    if not ranked:
        return {}
    areas = np.stack([one(draws) for one in ranked], 1)
    return {"auroc": _mean(areas, ~np.isnan(areas))}


def _classes_of(columns: Mapping[str, NDArray[Any]], classes: int) -> Callable[[Draws], Metrics]:
    """Counts the samples of each class, [r, classes], for several assignments of samples to classes, int64 [n] each;
    the number `classes` stands for none."""
    if classes > MOST_SUMMED:
        return lambda draws: {name: np.stack([np.bincount(numbers, weights=row, minlength=classes + 1)[:classes]
                                              for row in draws.counts]) for name, numbers in columns.items()}
    hot = np.concatenate([numbers[:, None] == np.arange(classes) for numbers in columns.values()], 1).astype(np.float32)
    return lambda draws: dict(zip(columns, np.split(_exact(draws, hot), len(columns), axis=1), strict=True))


def _exact(draws: Draws, values: NDArray[np.float32]) -> Floats:
    """Sums of whole numbers."""
    found: Floats = (draws.single @ values).astype(np.float64)
    return found


def _ratio(above: Floats, below: Floats) -> Floats:
    """NaN where there is nothing below."""
    found: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return found


def _mean(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    """The mean [r] of the values [r, k] that are counted; NaN if there are none."""
    return _ratio(np.where(counted, values, 0.0).sum(1), counted.sum(1).astype(np.float64))
