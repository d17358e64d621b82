"""Several optimizers as one."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from drumbeat.trainers.checkpoints.state import LABEL
from drumbeat.trainers.several_optimizers import SeveralOptimizers, parts_of_step, rate_curves


def test_a_step_and_a_schedule_are_those_of_each() -> None:
    """The weights are those of two optimizers side by side."""
    def net() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(3, 2)

    def made(model: nn.Linear) -> list[torch.optim.Optimizer]:
        return [torch.optim.Muon([model.weight], lr=0.1), torch.optim.AdamW([model.bias], lr=0.2)]

    one, other = net(), net()
    both, apart = SeveralOptimizers(made(one)), made(other)
    schedules = [ExponentialLR(both, 0.5)], [ExponentialLR(part, 0.5) for part in apart]
    for _ in range(3):
        for model in (one, other):
            model(torch.ones(4, 3)).square().sum().backward()
        for optimizer in (both, *apart):
            optimizer.step()
            optimizer.zero_grad()
        for schedule in (*schedules[0], *schedules[1]):
            schedule.step()
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)
    assert [group["lr"] for group in both.param_groups] == [0.0125, 0.025]


def test_each_other_rate_has_a_curve_of_its_own() -> None:
    """The first group's is train/lr; a group with a rate that has a curve already needs none."""
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(4)]
    groups = [{"params": [one], "lr": rate, LABEL: name} for one, rate, name in
              zip(weights, (0.1, 0.1, 0.3, 0.3), ("others", "norms", "head", "last"), strict=True)]
    assert rate_curves(torch.optim.SGD(groups)) == {"train/lr": 0, "train/lr/head": 2}


def test_what_a_step_consists_of() -> None:
    sgd = torch.optim.SGD(nn.Linear(1, 1).parameters())
    assert parts_of_step(sgd) == [sgd]
    assert parts_of_step(SeveralOptimizers([sgd])) == [sgd]
