"""Nested state becomes JSON and named tensors, and comes back as it was."""

from __future__ import annotations

import json
import re
from collections import Counter, OrderedDict, defaultdict, deque
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from drumbeat.trainers.checkpoints.codec import Encoder, UnsavableError, decode, restore_object


def back(value: Any, like: Any = None) -> Any:
    encoder = Encoder()
    saved = json.loads(json.dumps(encoder.encode(value, "it")))
    return decode(saved, {name: one.clone() for name, one in encoder.tensors.items()}, like)


@pytest.mark.parametrize("value", [
    None, True, 3, 0.1, float("inf"), "text", 1 + 2j, [1, [2.5, None]], (1, (2, "a")), {1, 2}, frozenset({3}),
    {"a": {"b": (1,)}}, {0: "zero", (1, 2): [3]}, {"$tensor": "not one"}, {}, Counter({4: 2, 9: 1}),
    OrderedDict(b=1, a=2), deque([1, (2,)], maxlen=3), torch.Size([2, 3])])
def test_values_come_back_with_their_types(value: Any) -> None:
    found = back(value)
    assert (type(found), found) == (type(value), value)
    if isinstance(value, deque):
        assert found.maxlen == value.maxlen
    if isinstance(value, OrderedDict):
        assert [*found] == [*value]


def test_tensors_and_arrays_at_any_depth() -> None:
    value = {"a": [torch.arange(3), (torch.tensor(1.5, dtype=torch.bfloat16),)], 7: np.arange(4.0), "x": np.float32(2)}
    found = back(value)
    assert torch.equal(found["a"][0], value["a"][0])  # type: ignore[index]
    assert (found["a"][1][0].dtype, found["a"][1][0].item()) == (torch.bfloat16, 1.5)
    assert found[7].tolist() == [0, 1, 2, 3]
    assert (type(found["x"]), found["x"]) == (np.float32, 2)
    encoder = Encoder()
    encoder.encode(value, "it")
    assert [*encoder.tensors] == ["it/a/0", "it/a/1/0", "it/7", "it/x"]


def test_a_tensor_in_two_places_is_stored_once_and_is_one_again() -> None:
    shared = torch.ones(2)
    found = back([shared, {"again": shared}])
    assert found[0] is found[1]["again"]


def test_tensors_with_the_same_address_are_two() -> None:
    found = back({1: torch.zeros(1), "1": torch.ones(1)})
    assert [found[1].item(), found["1"].item()] == [0, 1]


class Counts:
    """An object that tells its state, and has a function."""

    def __init__(self) -> None:
        self.calls = 0
        self.function = lambda: self.calls

    def state_dict(self) -> dict[str, Any]:
        return vars(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def test_objects_that_tell_their_state_are_restored_in_place() -> None:
    """Also inside another one; functions are those of the object that is restored."""
    saved, live = Counts(), Counts()
    saved.calls, saved.inner = 3, {"one": Counts()}  # type: ignore[attr-defined]
    live.inner = {"one": Counts()}  # type: ignore[attr-defined]
    saved.inner["one"].calls = 5  # type: ignore[attr-defined]
    inner, function = live.inner["one"], live.function  # type: ignore[attr-defined]
    encoder = Encoder()
    restore_object(live, json.loads(json.dumps(encoder.object(saved, "it"))), encoder.tensors)
    assert (live.calls, inner.calls, live.inner["one"] is inner, live.function is function) == (  # type: ignore[attr-defined]
        3, 5, True, True)


def test_a_default_dict_is_one_again() -> None:
    found = back(defaultdict(list, a=[1]), like=defaultdict(list))
    assert (found["a"], found["new"]) == ([1], [])


@pytest.mark.parametrize(("value", "message"), [
    (Fraction(1, 2), "it.a.0 is of type fractions.Fraction, which a checkpoint cannot hold"),
    (torch.ones(1, dtype=torch.complex128), "it.a.0 is a tensor of torch.complex128, which a checkpoint cannot hold"),
    (torch.ones(2, 2).to_sparse(), "it.a.0 is a tensor of torch.sparse_coo, which a checkpoint cannot hold")])
def test_what_cannot_be_stored_is_named(value: Any, message: str) -> None:
    with pytest.raises(UnsavableError, match=re.escape(message)):
        back({"a": [value]})


def test_a_function_that_the_config_does_not_build_is_an_error() -> None:
    with pytest.raises(UnsavableError, match="a function was in the saved state"):
        back({"f": back})
