"""The losses of samples, their mean, and shapes that do not fit together."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from drumbeat.trainers.tasks import MultiLabel, Regression, Task
from drumbeat.trainers.tasks.losses import mean, per_sample


def test_the_mean_does_not_depend_on_the_order() -> None:
    losses = torch.rand(10_000) * torch.logspace(-6, 6, 10_000)
    assert mean(losses) == mean(losses.flip(0))


@pytest.mark.parametrize("task", [MultiLabel(), Regression()])
def test_outputs_are_not_broadcast_to_the_targets(task: Task) -> None:
    with pytest.raises(ValueError, match="has 1 outputs for each sample, the data has 2"):
        task.losses(torch.zeros(4, 1), torch.zeros(4, 2))


def test_a_function_is_a_loss_of_samples_too() -> None:
    loss = per_sample(partial(sigmoid_focal_loss, gamma=2.0))
    outputs, targets = torch.randn(5, 3), torch.randint(0, 2, (5, 3)).float()
    assert torch.equal(loss(outputs, targets), sigmoid_focal_loss(outputs, targets, gamma=2.0, reduction="none"))
    with pytest.raises(ValueError, match="the loss cosine_similarity has no attribute or argument `reduction`"):
        per_sample(partial(torch.nn.functional.cosine_similarity, dim=1))
