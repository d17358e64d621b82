"""What a phase trains and what it freezes: modules stay in evaluation mode, parameters get no gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.schema import Phase
from drumbeat.data.loader import Batch
from drumbeat.trainers.build import build_forward
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.freezing import frozen_parts, set_trainable, trainable
from drumbeat.trainers.tasks import Regression
from drumbeat.trainers.world import World


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


def test_a_frozen_type_keeps_its_statistics_while_the_rest_trains() -> None:
    config = build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 4, "model": {"_target_": "x"}, "precision": "fp32",
        "phases": {"only": {"epochs": 1, "freeze": [{"type": "torch.nn.modules.batchnorm._BatchNorm"}],
                            "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}}}})])
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    world = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
    runner = build_phase_runner(config, 0, model, Regression(), world, build_forward(config, world.device))
    runner.train_mode()
    indices = torch.arange(4)
    runner.backward([Batch(torch.randn(4, 2), torch.ones(4, 1), indices, indices, indices < 0)], 0)
    assert runner.settle(runner.update())
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["0.weight", "0.bias", "2.weight", "2.bias"]
