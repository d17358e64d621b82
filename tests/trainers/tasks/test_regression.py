"""Numbers: losses, metrics and texts, against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from drumbeat.trainers.tasks import Regression
from tests.trainers.tasks.evaluated import results_of


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_a_number(shape: tuple[int, ...]) -> None:
    """Errors 1, 0, 0, 1; the targets' squared deviations sum to 20."""
    task = Regression(loss=nn.L1Loss(), values=["level"])
    outputs, targets = torch.tensor([2.0, 3.0, 5.0, 8.0]), torch.tensor([[1.0], [3.0], [5.0], [7.0]])
    results = results_of(task, outputs.reshape(shape), targets)
    assert results.losses.tolist() == [1, 0, 0, 1]
    assert task.metrics(results) == {"loss": 0.5, "mae": 0.5, "rmse": pytest.approx(0.5**0.5), "r2": 0.9}
    assert [worst.index for worst in task.worst_samples(results, 2)] == [0, 3]
    assert task.worst_samples(results, 1)[0].title == "predicted 2\nactual 1"
    assert task.probabilities(outputs) is None


def test_several_numbers() -> None:
    task = Regression()
    outputs, targets = torch.tensor([[1.0, 4.0], [3.0, 0.0]]), torch.tensor([[0.0, 4.0], [2.0, 2.0]])
    results = results_of(task, outputs, targets)
    assert results.losses.tolist() == [0.5, 2.5]
    assert task.metrics(results) == {"loss": 1.5, "mae": 1.0, "rmse": pytest.approx(1.5**0.5), "r2": -0.5}
    assert task.to_text(targets[1]) == "2, 2"
    alone = results_of(task, outputs[:1], targets[:1])
    assert math.isnan(task.metrics(alone)["r2"])
