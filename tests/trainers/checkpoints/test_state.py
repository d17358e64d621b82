"""The state of model, optimizer and scheduler in a checkpoint: it comes back bit for bit, and differences are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from drumbeat.configs.errors import RunError
from drumbeat.trainers.checkpoints.state import (
    load_weights,
    parameter_names,
    restore_training,
    tensors_after_a_step,
    training_state,
    weights_sha256,
)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop, torch.optim.AdamW])
def test_an_optimizer_and_its_schedule_go_on_as_if_never_stopped(kind: type[torch.optim.Optimizer]) -> None:
    """Through JSON and plain tensors, convolution weights in channels_last order."""

    def build() -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.SequentialLR]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2)).to(memory_format=torch.channels_last)
        more = {"momentum": 0.9} if kind in (torch.optim.SGD, torch.optim.RMSprop) else {}
        optimizer = kind(model.parameters(), lr=0.1, **more)  # type: ignore[call-arg]
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=3)
        rest = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 4])
        return model, optimizer, torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, rest], milestones=[4])

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.SequentialLR,
             number: int) -> None:
        inputs = torch.rand(4, 2, 4, 4, generator=torch.Generator().manual_seed(number))
        model(inputs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()

    straight, resumed = build(), build()
    for number in range(10):
        step(*straight, number)
    first = build()
    for number in range(5):
        step(*first, number)
    model, optimizer, scheduler = first
    held, values = training_state(optimizer, scheduler, parameter_names(model))
    resumed[0].load_state_dict(model.state_dict())
    restore_training(resumed[1], resumed[2], parameter_names(resumed[0]),
                     {name: value.clone() for name, value in held.items()}, json.loads(json.dumps(values)))
    for number in range(5, 10):
        step(*resumed, number)
    assert weights_sha256(resumed[0].state_dict()) == weights_sha256(straight[0].state_dict())
    assert resumed[1].param_groups[0]["lr"] == straight[1].param_groups[0]["lr"]


@pytest.mark.parametrize("fused", [True, False])
def test_an_optimizer_keeps_its_own_way_to_compute(fused: bool) -> None:
    """It may go on from a state that was saved on a GPU, where it was fused, or go on there."""
    saved, resumed = (torch.optim.Adam([nn.Parameter(torch.ones(3))], lr=lr, fused=flag)
                      for lr, flag in ((0.5, fused), (0.1, not fused)))
    names = [{one.param_groups[0]["params"][0]: "weight"} for one in (saved, resumed)]
    for one in (saved, resumed):
        one.param_groups[0]["params"][0].grad = torch.ones(3)
    saved.step()
    groups = resumed.param_groups
    restore_training(resumed, None, names[1], *training_state(saved, None, names[0]))
    assert resumed.param_groups is groups, "others may refer to them"
    assert (resumed.param_groups[0]["lr"], resumed.param_groups[0]["fused"]) == (0.5, not fused)
    resumed.step()
    assert training_state(resumed, None, names[1])[0]["weight/step"] == 2


def test_the_digest_sees_names_types_shapes_and_bytes() -> None:
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    assert weights_sha256(base) == weights_sha256(dict(reversed(base.items())))
    others = [{"a": torch.zeros(4), "c": torch.ones(2)}, {"a": torch.zeros(2, 2), "b": torch.ones(2)},
              {"a": torch.zeros(4), "b": torch.ones(2, dtype=torch.int32)},
              {"a": torch.zeros(4), "b": torch.tensor([1.0, 2.0])}]
    assert len({weights_sha256(other) for other in [base, *others]}) == 5


def test_tensors_are_named_by_parameter_and_the_rest_is_values() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.state[model.bias]["calls"] = 3
    found, values = training_state(optimizer, None, parameter_names(model))
    assert {name: value.tolist() for name, value in found.items()} == {
        "weight/momentum_buffer": [[1, 1]], "bias/momentum_buffer": [1]}
    saved = values["optimizer"][""]
    assert saved["state"]["bias"] == {"momentum_buffer": {"$tensor": "bias/momentum_buffer"}, "calls": 3}
    assert (saved["groups"][0]["lr"], "params" in saved["groups"][0]) == (0.5, False)
    assert values["scheduler"] == {}


def test_state_keeps_its_type_and_takes_the_memory_format_of_its_parameter() -> None:
    """torch's own `load_state_dict` casts it to the type of the parameter."""
    weight = nn.Parameter(torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last))
    saved, resumed = (torch.optim.SGD([weight], lr=1) for _ in range(2))
    precise = torch.full((2, 3, 4, 4), 1 / 3, dtype=torch.float64)
    saved.state[weight] = {"precise": precise, "note": "as it is", "step": torch.tensor(3.0)}
    restore_training(resumed, None, {weight: "weight"}, *training_state(saved, None, {weight: "weight"}))
    found = resumed.state[weight]
    assert torch.equal(found["precise"], precise)
    assert found["precise"].is_contiguous(memory_format=torch.channels_last)
    assert (found["precise"].dtype, found["note"], found["step"].item()) == (torch.float64, "as it is", 3)


def test_state_goes_to_the_parameter_of_its_name() -> None:
    """Although the code has since changed the order of the parameters."""
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(1))
    names = {first: "first", second: "second"}
    saved, resumed = torch.optim.SGD([first, second], lr=1), torch.optim.SGD([second, first], lr=1)
    saved.state[first] = {"momentum_buffer": torch.tensor([5.0])}
    restore_training(resumed, None, names, *training_state(saved, None, names))
    assert resumed.state == {first: {"momentum_buffer": torch.tensor([5.0])}}


def test_the_tensors_after_a_step_are_known_without_it() -> None:
    model = nn.Linear(2, 1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = weights_sha256(model.state_dict())
    found = tensors_after_a_step(torch.optim.Adam, model.parameters(), parameter_names(model))
    assert {name: (list(value.shape), value.dtype, value.device.type) for name, value in found.items()} == {
        f"{name}/{item}": (shape, torch.float32, "meta")
        for name, whole in (("weight", [1, 2]), ("bias", [1]))
        for item, shape in (("step", []), ("exp_avg", whole), ("exp_avg_sq", whole))}
    assert weights_sha256(model.state_dict()) == before


def test_the_tensors_after_a_step_have_the_order_in_memory_of_their_parameters() -> None:
    """In which they are staged, without a copy that reorders them."""
    model = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.weight.grad = torch.ones_like(model.weight)
    found = tensors_after_a_step(torch.optim.Adam, [model.weight], parameter_names(model))
    assert found["weight/exp_avg"].stride() == model.weight.stride() == (12, 1, 6, 3)


def test_weights_that_do_not_fit_are_named_and_not_loaded(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    before = weights_sha256(model.state_dict())
    with pytest.raises(RunError) as raised:
        load_weights(model, {"weight": torch.zeros(1, 3), "scale": torch.zeros(2)}, tmp_path, "my.Net")
    (fault,) = raised.value.faults
    assert fault.given == ("bias: expected [1], found nothing\nscale: expected nothing, found [2]\n"
                           "weight: expected [1, 2], found [1, 3]")
    assert "my.Net" in fault.remedy
    assert weights_sha256(model.state_dict()) == before


def test_of_many_differences_six_are_named(tmp_path: Path) -> None:
    model = nn.ModuleList(nn.Linear(1, 1) for _ in range(4))
    with pytest.raises(RunError) as raised:
        load_weights(model, {}, tmp_path, "my.Net")
    lines = raised.value.faults[0].given.splitlines()
    assert (len(lines), lines[-1]) == (7, "... and 2 more")
