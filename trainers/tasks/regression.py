"""Regression: one or several numbers for each sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.data.loader import one_thread
from drumbeat.trainers.tasks.losses import matching, mean, one_each, per_sample, rows
from drumbeat.trainers.tasks.task import Kind, Results, WorstSample, worst_among


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
        values, expected = matching(outputs, targets)
        return one_each(rows(self.loss(values, expected)).mean(1), outputs)

    def metrics(self, results: Results) -> dict[str, float]:
        from torchmetrics.functional import regression  # seconds to import

        predicted, expected = (values.double() for values in matching(results.outputs, results.targets))
        with one_thread():
            return {"loss": mean(results.losses),
                    "mae": float(regression.mean_absolute_error(predicted.flatten(), expected.flatten())),
                    "rmse": float(regression.mean_squared_error(predicted.flatten(), expected.flatten(),
                                                                squared=False)),
                    "r2": float(regression.r2_score(predicted, expected)) if len(expected) > 1 else math.nan}

    def worst_samples(self, results: Results, most: int) -> list[WorstSample]:
        return worst_among(self, results, torch.ones(len(results.losses), dtype=torch.bool), most)

    def predictions(self, outputs: Tensor) -> Tensor:
        return rows(outputs).float()

    def probabilities(self, outputs: Tensor) -> None:
        return None

    def to_text(self, value: Tensor) -> str:
        return ", ".join(f"{number:.4g}" for number in value.flatten().tolist())
