"""Any number of labels: losses, metrics and texts, against numbers computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from drumbeat.trainers.tasks import MultiLabel
from tests.trainers.tasks.evaluated import results_of


def test_any_number_of_labels() -> None:
    """Label a: 1 hit, 1 miss, F1 2/3. Label b: 1 hit, 1 false alarm, F1 2/3. Label c: absent, not predicted, F1 0."""
    task = MultiLabel(classes=["a", "b", "c"])
    outputs = torch.tensor([[2.0, -3.0, -1.0], [-0.5, 1.0, -9.0], [-4.0, 0.5, -2.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    results = results_of(task, outputs, targets)
    metrics = task.metrics(results)
    assert metrics["accuracy"] == 1 / 3
    assert metrics["hamming"] == 7 / 9
    assert metrics["f1"] == pytest.approx(4 / 9)
    assert metrics["loss"] == pytest.approx(float(functional.binary_cross_entropy_with_logits(outputs, targets)))
    assert task.probabilities(outputs).shape == (3, 3)
    assert [task.to_text(row) for row in targets] == ["a", "a + b", "none"]
    assert [(worst.index, worst.title) for worst in task.worst_samples(results, 9)] == [
        (1, "predicted b\nactual a + b"), (2, "predicted b\nactual none")]


def test_one_label() -> None:
    task = MultiLabel(classes=["good"])
    results = results_of(task, torch.tensor([1.0, -1.0]), torch.tensor([[1.0], [1.0]]))
    assert task.metrics(results)["accuracy"] == task.metrics(results)["hamming"] == 0.5
    assert task.predictions(results.outputs).tolist() == [[True], [False]]
