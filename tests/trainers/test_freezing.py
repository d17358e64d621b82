"""What a phase trains and what it freezes: modules stay in evaluation mode, parameters get no gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from drumbeat.configs.schema import Phase
from drumbeat.trainers.freezing import frozen_parts, set_trainable, trainable


def model_with(freeze: list[Any]) -> tuple[nn.Module, list[nn.Module]]:
    """A model that has frozen a parameter itself, and what the phase freezes of it."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[2].bias.requires_grad_(False)
    free = trainable(model)
    frozen = frozen_parts(model, Phase(epochs=1, optimizer={}, freeze=freeze), "only")
    set_trainable(model, free, frozen)
    return model, [*frozen.modules]


def trained(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_by_type_by_module_and_by_parameter() -> None:
    """What the model has frozen itself stays so in each."""
    assert trained(model_with([])[0]) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight"]
    model, modules = model_with([{"type": "torch.nn.BatchNorm1d"}, "*.bias"])
    assert (trained(model), modules) == (["0.weight", "2.weight"], [model[1]])
    model, modules = model_with(["0", "1"])
    assert (trained(model), modules) == (["2.weight"], [model[0], model[1]])


def test_a_later_phase_trains_what_an_earlier_one_has_frozen() -> None:
    model, _ = model_with(["0"])
    everything = [one for one in model.parameters() if one is not model[2].bias]
    set_trainable(model, everything, frozen_parts(model, Phase(epochs=1, optimizer={}), "all"))
    assert trained(model) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight"]
    assert torch.equal(model[1].running_mean, torch.zeros(2))
