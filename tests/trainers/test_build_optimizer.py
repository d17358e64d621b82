"""The optimizer and the scheduler of a phase from its config."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.schema import Group, Phase
from drumbeat.trainers.build_optimizer import build_optimizer, build_scheduler, optimizer_maker
from drumbeat.trainers.freezing import trainable

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.5}
OWN = "tests.trainers.own_optimizers"


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))


def built(optimizer: dict[str, Any] = ADAMW, **options: Any) -> torch.optim.Optimizer:
    net = model()
    return build_optimizer(Phase(epochs=1, optimizer=optimizer, **options), "train", net, trainable(net))


def refused(**options: Any) -> tuple[str, str, str]:
    with pytest.raises(PreflightError) as caught:
        built(**options)
    (fault,) = caught.value.faults
    return fault.what, fault.where, fault.remedy


def test_groups_replace_arguments_and_know_names() -> None:
    groups = built(groups={"norms": Group(match=[{"type": "torch.nn.LayerNorm"}], optimizer={"weight_decay": 0}),
                           "head": Group(match=["2"], optimizer={"lr": 0.3})}).param_groups
    assert [(one["lr"], one["weight_decay"], one["param_names"]) for one in groups] == [
        (0.1, 0.5, ["0.weight", "0.bias"]), (0.1, 0, ["1.weight", "1.bias"]), (0.3, 0.5, ["2.weight", "2.bias"])]


def test_an_optimizer_around_another_one_has_groups() -> None:
    """torch adds the inner one's defaults, such as momentum, to the groups that it is given."""
    groups = built({"_target_": f"{OWN}.Lookahead", "lr": 0.1},
                   groups={"vectors": Group(ndim=[1], optimizer={"lr": 0.3})}).param_groups
    assert [(one["lr"], one["momentum"]) for one in groups] == [(0.1, 0.9), (0.3, 0.9)]


def test_layers_scale_the_rate_of_each_group() -> None:
    groups = built(layers=["0", "1", "2"], layer_decay=0.1, groups={
        "head": Group(match=["2"], optimizer={"lr": 0.3})}).param_groups
    assert [round(one["lr"], 9) for one in groups] == [0.01, 0.001, 0.3]


def test_a_group_with_an_optimizer_of_its_own() -> None:
    both = built(groups={"matrices": Group(ndim=[2], optimizer={"_target_": "torch.optim.Muon", "lr": 0.02})})
    assert [type(one).__name__ for one in both.optimizers] == ["AdamW", "Muon"]  # type: ignore[attr-defined]
    assert [(one["lr"], one["param_names"]) for one in both.param_groups] == [
        (0.1, ["0.bias", "1.weight", "1.bias", "2.bias"]), (0.02, ["0.weight", "2.weight"])]
    only = built(groups={"all": Group(optimizer={"_target_": "torch.optim.SGD", "lr": 1.0})})
    assert type(only) is torch.optim.SGD


def test_a_target_that_wants_names_gets_them() -> None:
    groups = built({"_target_": f"{OWN}.decayed", "lr": 0.1}).param_groups
    assert [len(one["params"]) for one in groups] == [3, 3]
    assert groups[1]["param_names"] == ["0.bias", "1.bias", "2.bias"]


def test_other_parameters_in_their_place() -> None:
    """As for a step on tensors without values: the n-th is in the group of the n-th."""
    net, phase = model(), Phase(epochs=1, optimizer=ADAMW, groups={"vectors": Group(ndim=[1])})
    likes = [nn.Parameter(torch.zeros(one.shape)) for one in net.parameters()]
    groups = optimizer_maker(phase, "train", net)(likes).param_groups
    assert groups[1]["params"][0] is likes[1]


def test_an_argument_that_the_optimizer_does_not_have() -> None:
    assert refused(groups={"a": Group(optimizer={"weigth_decay": 0})}) == (
        "torch.optim.AdamW has no argument 'weigth_decay' for a group", "phases.train.groups.a.optimizer.weigth_decay",
        "Did you mean 'weight_decay'?")
    what, where, _ = refused(groups={"a": Group(optimizer={"_target_": "torch.optim.Muon"})})
    assert what.startswith("Muon only supports 2D parameters")
    assert where == "phases.train.groups.a.optimizer"


def test_an_optimizer_that_makes_other_groups() -> None:
    what, where, _ = refused(optimizer={"_target_": f"{__name__}.flattened", "lr": 0.1},
                             groups={"a": Group(ndim=[1])})
    assert (what, where) == ("the optimizer does not keep the parameter groups that it is given",
                             "phases.train.optimizer")


def flattened(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([one for group in groups for one in group["params"]], lr=lr)


def test_schedulers_within_a_scheduler_get_the_optimizer() -> None:
    """Warm-up and cosine, without a function of one's own."""
    at = "torch.optim.lr_scheduler"
    parts = [{"_target_": f"{at}.LinearLR", "start_factor": 0.25, "total_iters": 2},
             {"_target_": f"{at}.CosineAnnealingLR", "T_max": 4}]
    optimizer = torch.optim.SGD(model().parameters(), lr=1.0)
    scheduler = build_scheduler(Phase(epochs=1, optimizer={}, scheduler={
        "_target_": f"{at}.SequentialLR", "milestones": [2], "schedulers": parts}), "train", optimizer)
    rates = []
    for _ in range(6):
        rates.append(round(optimizer.param_groups[0]["lr"], 3))
        optimizer.step()
        scheduler.step()
    assert rates == [0.25, 0.625, 1.0, 0.854, 0.5, 0.146]
