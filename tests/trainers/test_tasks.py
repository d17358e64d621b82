"""Losses, metrics and texts of each kind of task, against numbers computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from drumbeat.trainers.tasks import Classification, MultiLabel, Regression, Results, Task


def results_of(task: Task, outputs: Tensor, targets: Tensor) -> Results:
    return Results(task.losses(outputs, targets), outputs, targets)


def test_one_of_several_classes() -> None:
    task = Classification(classes=["cat", "dog", "owl"])
    outputs = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0], [1.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    targets = torch.tensor([0, 1, 2, 1])
    metrics = task.metrics(results_of(task, outputs, targets))
    assert metrics["accuracy"] == 0.5
    assert metrics["loss"] == pytest.approx(float(functional.cross_entropy(outputs, targets)))
    assert task.predictions(outputs).tolist() == [0, 2, 0, 1]
    torch.testing.assert_close(task.probabilities(outputs).sum(1), torch.ones(4))
    assert [task.to_text(row) for row in targets] == ["cat", "dog", "owl", "dog"]
    assert [worst.title for worst in task.worst_samples(results_of(task, outputs, targets), 9)] == [
        "predicted owl\nactual dog", "predicted cat\nactual owl"]


def test_the_softmax_of_log_probabilities_is_the_probabilities() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
    task = Classification(loss=nn.NLLLoss())
    torch.testing.assert_close(task.probabilities(probabilities.log()), probabilities)
    torch.testing.assert_close(task.losses(probabilities.log(), torch.tensor([0, 2])), -torch.tensor([0.7, 0.5]).log())


@pytest.mark.parametrize("ignored", [-100, 1])
def test_the_loss_of_a_set_with_weighted_classes_is_torchs_mean(ignored: int) -> None:
    loss = nn.NLLLoss(weight=torch.tensor([0.5, 2.0, 4.0]), ignore_index=ignored)
    logs, targets = torch.randn(6, 3).log_softmax(1), torch.tensor([0, 1, 2, 2, 1, 0])
    expected = float(loss(logs, targets))
    task = Classification(loss=loss)
    assert task.metrics(results_of(task, logs, targets))["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("task", [Classification(), Classification(loss=nn.CrossEntropyLoss(label_smoothing=0.1))])
def test_samples_have_no_weights_unless_their_classes_have(task: Classification) -> None:
    assert task.weights(torch.tensor([0, 1])) is None


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("loss", [None, nn.BCEWithLogitsLoss()])
def test_two_classes_from_one_output(shape: tuple[int, ...], loss: nn.Module | None) -> None:
    task = Classification(classes=["bad", "good"], loss=loss)
    outputs = torch.tensor([2.0, -1.0, 0.5]).reshape(shape)
    targets = torch.tensor([1, 0, 0])
    good = 1 / (1 + torch.exp(-outputs.flatten()))
    torch.testing.assert_close(task.probabilities(outputs), torch.stack([1 - good, good], 1))
    torch.testing.assert_close(task.losses(outputs, targets), -torch.stack([good[0], 1 - good[1], 1 - good[2]]).log())
    results = results_of(task, outputs, targets)
    assert task.metrics(results)["accuracy"] == 2 / 3
    assert [worst.title for worst in task.worst_samples(results, 9)] == ["predicted good\nactual bad"]


def test_a_loss_for_several_classes_is_refused_with_one_output() -> None:
    with pytest.raises(ValueError, match="one value for each sample"):
        Classification(loss=nn.CrossEntropyLoss()).losses(torch.zeros(3, 1), torch.tensor([1, 0, 1]))


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


@pytest.mark.parametrize("task", [MultiLabel(), Regression()])
def test_outputs_are_not_broadcast_to_the_targets(task: Task) -> None:
    with pytest.raises(ValueError, match="has 1 outputs for each sample, the data has 2"):
        task.losses(torch.zeros(4, 1), torch.zeros(4, 2))
