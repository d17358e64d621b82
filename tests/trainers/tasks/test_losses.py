"""The losses of samples, their mean, and shapes that do not fit together."""

from __future__ import annotations

import pytest
import torch

from drumbeat.trainers.tasks import MultiLabel, Regression, Task
from drumbeat.trainers.tasks.losses import mean


def test_the_mean_does_not_depend_on_the_order() -> None:
    losses = torch.rand(10_000) * torch.logspace(-6, 6, 10_000)
    assert mean(losses) == mean(losses.flip(0))


@pytest.mark.parametrize("task", [MultiLabel(), Regression()])
def test_outputs_are_not_broadcast_to_the_targets(task: Task) -> None:
    with pytest.raises(ValueError, match="has 1 outputs for each sample, the data has 2"):
        task.losses(torch.zeros(4, 1), torch.zeros(4, 2))
