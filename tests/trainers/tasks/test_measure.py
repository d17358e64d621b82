"""All metrics of each kind of task, computed by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multiclass_calibration_error,
)

from drumbeat.trainers.tasks import Classification, MultiLabel, Regression, Results, Task
from drumbeat.trainers.tasks.measure import measure


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


class Own(Classification):
    """A kind of its own, with a row for each class."""

    kind = "other"

    def class_rows(self, results: Results) -> list[dict[str, Any]]:
        return [{"name": "a", "hits": 3, "iou": 0.5}]


def test_a_task_with_tables_of_its_own() -> None:
    outputs, targets = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    task = Own()
    results = Results(task.losses(outputs, targets), outputs, targets, metrics={"f2": 0.25})
    found = measure(task, results)
    assert found.metrics == {**task.metrics(results), "f2": 0.25}
    assert found.classes == [{"name": "a", "hits": 3, "iou": 0.5}]


@pytest.mark.parametrize("digits", [1, 6])
def test_rankings_are_those_of_torchmetrics(digits: int) -> None:
    """Of scores of which many are equal, or none."""
    generator = torch.Generator().manual_seed(digits)
    outputs, targets = torch.randn(500, 4, generator=generator), torch.randint(3, (500,), generator=generator)
    rounded = outputs.softmax(1).round(decimals=digits)
    task = Given()
    classes = measure(task, Results(torch.zeros(500), rounded, targets)).classes
    for number in range(3):
        given = rounded[:, number], (targets == number).long()
        assert classes[number]["auroc"] == pytest.approx(float(binary_auroc(*given)), abs=1e-6)
        assert classes[number]["average_precision"] == pytest.approx(float(binary_average_precision(*given)), abs=1e-6)
    assert (classes[3]["auroc"], classes[3]["average_precision"]) == (None, None)


def test_calibration_is_that_of_torchmetrics() -> None:
    task, outputs, targets = Classification(), torch.randn(200, 3).mul(3), torch.randint(3, (200,))
    found = measure(task, Results(task.losses(outputs, targets), outputs, targets)).metrics["calibration_error"]
    assert found == pytest.approx(float(multiclass_calibration_error(outputs, targets, 3)))


def test_a_metric_reads_the_outputs_without_copying_them_unless_some_do_not_count() -> None:
    task, outputs = Classification(loss=torch.nn.CrossEntropyLoss()), torch.zeros(3, 2)
    assert task.elements(Results(torch.zeros(3), outputs, torch.tensor([0, 1, 0]))).outputs is outputs
    some = task.elements(Results(torch.zeros(3), outputs, torch.tensor([0, -100, 0])))
    assert (len(some.outputs), some.targets.tolist()) == (2, [0, 0])


class Given(Classification):
    """Its outputs are probabilities."""

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs
