"""Which parameters a phase trains with which values."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.schema import Group, Phase
from drumbeat.trainers.freezing import trainable
from drumbeat.trainers.parameter_groups import names_of, parameter_groups


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 3)) for _ in range(2))
        self.head = nn.Linear(3, 1, bias=False)


def found(layers: list[Any] | None = None, decay: float = 1.0, **groups: Group) -> dict[str, tuple[list[str], float]]:
    """The names of the parameters of each group, and the factor of its rate."""
    model = Net()
    phase = Phase(epochs=1, optimizer={}, groups={**groups}, layers=layers or [], layer_decay=decay)
    trained, names = trainable(model), names_of(model)
    groups_found = parameter_groups(phase, "train", model, trained)
    assert sorted(number for one in groups_found for number in one.numbers) == [*range(len(trained))]
    return {one.label: ([names[trained[number]] for number in one.numbers], one.scale) for one in groups_found}


def refused(layers: list[Any] | None = None, **groups: Group) -> tuple[str, str, str]:
    with pytest.raises(PreflightError) as caught:
        found(layers, **groups)
    (fault,) = caught.value.faults
    return fault.what, fault.where, fault.remedy


def test_the_first_group_that_fits_wins_and_the_others_come_first() -> None:
    assert found(norms=Group(match=[{"type": "torch.nn.LayerNorm"}]), vectors=Group(ndim=[0, 1]),
                 blocks=Group(match=["blocks.*"], ndim=[2])) == {
        "others": (["stem.weight", "head.weight"], 1.0),
        "norms": (["blocks.0.0.weight", "blocks.0.0.bias", "blocks.1.0.weight", "blocks.1.0.bias"], 1.0),
        "vectors": (["stem.bias", "blocks.0.1.bias", "blocks.1.1.bias"], 1.0),
        "blocks": (["blocks.0.1.weight", "blocks.1.1.weight"], 1.0)}


def test_layers_from_the_output_to_the_input() -> None:
    """Each pattern makes a layer of each module that it fits, and groups are cut along them."""
    rates = found(["stem", "blocks.*", "head"], 0.5, vectors=Group(ndim=[1]))
    assert {label: scale for label, (_, scale) in rates.items()} == {
        "head": 1.0, "blocks.1": 0.5, "blocks.0": 0.25, "stem": 0.125,
        "vectors blocks.1": 0.5, "vectors blocks.0": 0.25, "vectors stem": 0.125}
    assert rates["vectors blocks.0"][0] == ["blocks.0.0.weight", "blocks.0.0.bias", "blocks.0.1.bias"]


def test_a_list_is_one_layer_and_a_parameter_may_be_one() -> None:
    rates = found([["stem.weight", "blocks"], "stem.bias", "head"], 0.1)
    assert [(label, round(scale, 9), len(names)) for label, (names, scale) in rates.items()] == [
        ("head", 1.0, 1), ("stem.bias", 0.1, 1), ("stem.weight", 0.01, 9)]


def test_frozen_layers_count() -> None:
    """So that freezing the stem does not change the rates of the others."""
    model = Net()
    model.stem.requires_grad_(False)
    phase = Phase(epochs=1, optimizer={}, layers=["stem", "blocks.*", "head"], layer_decay=0.5)
    groups = parameter_groups(phase, "train", model, trainable(model))
    assert [(one.label, one.scale) for one in groups] == [("head", 1.0), ("blocks.1", 0.5), ("blocks.0", 0.25)]


def test_groups_without_parameters() -> None:
    assert refused(norms=Group(match=["*.biass"])) == (
        "no module or parameter of the model fits '*.biass'", "phases.train.groups.norms.match",
        "Did you mean '*.bias'?")
    assert refused(a=Group(match=["head"], ndim=[1])) == (
        "group a has no parameters", "phases.train.groups.a", "What it matches has 2 dimensions.")
    assert refused(a=Group(match=["stem"]), b=Group(match=["stem.bias"]))[2] == (
        "All are in groups that come first: a. Put it before them.")


def test_parameters_in_no_layer() -> None:
    assert refused(["stem", "blocks.*"]) == (
        "1 parameters are in none of the layers", "phases.train.layers", "Add their modules, or freeze them.")
