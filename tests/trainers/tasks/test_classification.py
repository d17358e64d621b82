"""One class of several: losses, metrics and texts, against numbers computed by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from drumbeat.trainers.tasks import Classification
from tests.trainers.tasks.evaluated import results_of


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


def smooth(outputs: torch.Tensor, targets: torch.Tensor, ignore_index: int = 9, reduction: str = "mean"
           ) -> torch.Tensor:
    return functional.cross_entropy(outputs, targets, ignore_index=ignore_index, reduction=reduction)


@pytest.mark.parametrize("loss", [partial(functional.cross_entropy, weight=torch.tensor([0.5, 2.0, 4.0])),
                                  partial(functional.cross_entropy), partial(smooth, ignore_index=-100)])
def test_what_a_function_ignores_does_not_count(loss: Any) -> None:
    """Neither in the mean loss nor in the accuracy: as if its class were named."""
    task = Classification(loss=loss)
    outputs, targets = torch.randn(4, 3, 2), torch.tensor([[0, 1], [2, -100], [-100, -100], [1, 0]])
    metrics = task.metrics(results_of(task, outputs, targets))
    assert metrics["loss"] == pytest.approx(float(loss(outputs, targets)), rel=1e-6)
    assert metrics["accuracy"] == int((outputs.argmax(1) == targets).sum()) / 5


@pytest.mark.parametrize("loss", [None, nn.BCEWithLogitsLoss()])
def test_samples_have_no_weights_unless_some_may_not_count(loss: nn.Module | None) -> None:
    assert Classification(loss=loss).weights(torch.tensor([0, 1])) is None


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
