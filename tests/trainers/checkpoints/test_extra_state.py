"""Extra state of modules: any value that a checkpoint can hold, in a state dict of tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.trainers.checkpoints.extra_state import as_tensors, is_extra_state, untouched
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.same_bits import assert_same_bits


class Extra(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value
        self.weight = nn.Parameter(torch.ones(1))

    def get_extra_state(self) -> Any:
        return self.value

    def set_extra_state(self, state: Any) -> None:
        self.value = state


VALUES = [3, {"amax": torch.arange(3.0), "seen": [1, 2], "mode": None}, (1, {2: torch.ones(2, dtype=torch.bool)}), "é"]


@pytest.mark.parametrize("value", VALUES, ids=["number", "dict", "tuple", "text"])
def test_a_value_is_saved_as_tensors_and_loaded(value: Any) -> None:
    model, other = (as_tensors(nn.Sequential(nn.Sequential(Extra(one)), Extra(0))) for one in (value, value))
    state = model.state_dict()
    assert all(isinstance(one, Tensor) for one in state.values())
    other[0][0].value = {"amax": torch.zeros(0)} if isinstance(value, dict) else None  # type: ignore[index]
    assert not other.load_state_dict(state).unexpected_keys
    assert_same_bits(other[0][0].value, value)  # type: ignore[index]
    assert next(name for name in state if is_extra_state(name)) == "0.0._extra_state"


def test_a_tensor_stays_as_it_is_and_what_cannot_be_saved_stays() -> None:
    assert torch.equal(as_tensors(Extra(torch.ones(2))).state_dict()["_extra_state"], torch.ones(2))
    value = object.__new__(type("Opaque", (), {"__slots__": ()}))
    assert as_tensors(Extra(value)).state_dict()["_extra_state"] is value
    loaded = as_tensors(Extra(torch.zeros(2)))
    loaded.load_state_dict({"weight": torch.ones(1), "_extra_state": torch.ones(2)})
    assert torch.equal(loaded.value, torch.ones(2))


def test_a_discarded_pass_does_not_change_it() -> None:
    model = nn.Sequential(Extra({"seen": [1]}))
    with untouched(model):
        model[0].value["seen"].append(2)  # type: ignore[index,operator]
    assert model[0].value == {"seen": [1]}


def on_each(world: World) -> None:
    """Rank 1 gets rank 0's, whose text is longer."""
    model = as_tensors(nn.Sequential(Extra({"seen": [] if world.rank else [1, 2, 3], "at": torch.ones(1) * world.rank}),
                                     nn.BatchNorm1d(2)))
    nn.init.constant_(model[0].weight, world.rank)  # type: ignore[index,arg-type]
    world.broadcast_model(model)
    assert_same_bits(model[0].value, {"seen": [1, 2, 3], "at": torch.zeros(1)})  # type: ignore[index]
    assert float(model[0].weight) == 0  # type: ignore[index,arg-type]


def test_every_rank_gets_rank_0s() -> None:
    on_ranks(2, on_each)
