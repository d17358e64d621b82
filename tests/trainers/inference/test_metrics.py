"""Metrics of each kind of task, computed by hand, and their table."""

from __future__ import annotations

import json

import pytest
import torch

from drumbeat.trainers.inference.metrics import as_text, measure
from drumbeat.trainers.tasks import Classification, MultiLabel, Regression, Results, Task


def results_of(task: Task, outputs: list[list[float]], targets: torch.Tensor) -> Results:
    values = torch.tensor(outputs)
    return Results(task.losses(values, targets), values, targets)


def test_metrics_of_classes() -> None:
    """Four samples of three classes, the last of which has none, computed by hand."""
    task = Classification(classes=["a", "b", "c"])
    found = measure(task, results_of(task, [[2, 0, 0], [0, 1, 0], [3, 0, 0], [0, 1, 0]], torch.tensor([0, 0, 0, 1])))
    assert found.confusion == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    a, b, c = found.classes
    assert (a["correct"], a["samples"], a["precision"], a["recall"]) == (2, 3, 1, pytest.approx(2 / 3))
    assert (b["precision"], b["recall"], b["f1"]) == (0.5, 1, pytest.approx(2 / 3))
    assert b["auroc"] == pytest.approx((2 + 0.5) / 3)
    assert (c["accuracy"], c["auroc"], c["f1"]) == (None, None, None)
    assert found.metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    lines = as_text(found).splitlines()
    assert lines[-3].split()[:3] == ["a", "67%", "(2/3)"]
    assert lines[-1].split()[:3] == ["c", "no", "sample"]
    json.dumps(found.as_json(), allow_nan=False)


def test_metrics_of_labels_and_values() -> None:
    labels = MultiLabel(classes=["x", "y"])
    found = measure(labels, results_of(labels, [[1, -1], [1, 1], [-1, -1]], torch.tensor([[1, 0], [0, 1], [0, 0.0]])))
    x, y = found.classes
    assert (x["correct"], x["positive"], x["precision"], x["recall"]) == (2, 1, 0.5, 1)
    assert (y["correct"], y["auroc"]) == (3, 1)
    values = Regression(values=["t"])
    found = measure(values, results_of(values, [[1], [2], [4]], torch.tensor([[1], [3], [5.0]])))
    (row,) = found.classes
    assert (row["mae"], row["mean_error"], row["r2"]) == (pytest.approx(2 / 3), pytest.approx(-2 / 3), 0.75)


def test_of_many_classes_the_worst_are_printed() -> None:
    task = Classification(classes=[f"class {number}" for number in range(50)])
    targets = torch.arange(50).repeat(4)
    outputs = torch.nn.functional.one_hot(targets, 50).float()
    outputs[7] = 0
    outputs[7, 8] = 1
    lines = as_text(measure(task, Results(task.losses(outputs, targets), outputs, targets))).splitlines()
    assert "the 30 worst of 50" in lines
    assert lines[lines.index("the 30 worst of 50") + 3].startswith("class 7 ")
