"""What differs between a run that was not stopped and one that has resumed is named, attribute by attribute."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from drumbeat.trainers.lost_state import differences, model_differences


def found(one: Any, other: Any) -> list[str]:
    return [*differences(SimpleNamespace(x=one), SimpleNamespace(x=other), "it")]


@pytest.mark.parametrize(("one", "other", "line"), [
    (1, 2, "it.x: 1 without a stop, 2 after a resume"),
    (1, 1.0, "it.x: 1 without a stop, 1.0 after a resume"),
    ({"a": [0, 1]}, {"a": [0, 2]}, "it.x['a'][1]: 1 without a stop, 2 after a resume"),
    (deque([1]), deque(), "it.x[0]: missing after a resume"),
    ({}, {"a": 1}, "it.x['a']: only there after a resume"),
    (torch.zeros(2), torch.ones(2), "it.x: another float32 [2] without a stop, another float32 [2] after a resume"),
    (torch.tensor(1.5), torch.tensor(2), "it.x: 1.5 without a stop, 2 after a resume"),
    (SimpleNamespace(y={1}), SimpleNamespace(y={2}), "it.x.y: {1} without a stop, {2} after a resume")])
def test_what_differs(one: Any, other: Any, line: str) -> None:
    assert found(one, other) == [line]


@pytest.mark.parametrize(("one", "other"), [
    (float("nan"), float("nan")), (torch.tensor([float("nan")]), torch.tensor([float("nan")])), (len, sum),
    ({"_some_hooks": {1: len}}, {"_some_hooks": {2: len}}), ({}, {"a": {}}), (lambda: 1, lambda: 2)])
def test_what_does_not(one: Any, other: Any) -> None:
    assert found(one, other) == [] or "_some_hooks" in str(one)


def test_a_circle_ends() -> None:
    one, other = SimpleNamespace(n=1), SimpleNamespace(n=2)
    one.me, other.me = one, other
    assert found(one, other) == ["it.x.n: 1 without a stop, 2 after a resume"]


def test_parameters_are_keys_by_their_names() -> None:
    one, other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    lines = differences({one: {"calls": 1}}, {other: {"calls": 2}}, "state", {one: "weight"}, {other: "weight"})
    assert [*lines] == ["state['weight']['calls']: 1 without a stop, 2 after a resume"]


def test_a_model_is_compared_outside_its_state_dict() -> None:
    one, other = (nn.Sequential(nn.BatchNorm1d(2)) for _ in range(2))
    for number, model in enumerate((one, other)):
        model[0].calls = number
        model[0].register_buffer("table", torch.tensor(number), persistent=False)
        model[0].running_mean += number
    assert [*model_differences(one, other)] == ["model.0.calls: 0 without a stop, 1 after a resume",
                                                "model.0.table: 0 without a stop, 1 after a resume"]
