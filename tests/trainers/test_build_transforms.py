"""Transforms are objects of classes, or functions that get the config's arguments by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from drumbeat.configs.errors import PreflightError
from drumbeat.trainers.build_transforms import as_module, build_transforms

HERE = "tests.trainers.test_build_transforms"


def scaled(value: Any, *, by: float = 2.0) -> Any:
    return value * by


def makes_one(by: float) -> Callable[[Any], Any]:
    return lambda value: value * by


def seven() -> int:
    return 7


class Plus:
    def __init__(self, *, more: int) -> None:
        self.more = more

    def __call__(self, value: Any) -> Any:
        return value + self.more


@pytest.mark.parametrize(("node", "expected"), [
    ({"_target_": f"{HERE}.scaled"}, 6.0), ({"_target_": f"{HERE}.scaled", "by": 4}, 12.0),
    ({"_target_": f"{HERE}.makes_one", "by": 4}, 12.0), ({"_target_": f"{HERE}.Plus", "more": 4}, 7.0),
    ({"_target_": "torch.negative"}, -3.0), ({"_target_": "torch.nn.ReLU"}, 3.0),
])
def test_classes_functions_and_functions_that_return_transforms(node: dict[str, Any], expected: float) -> None:
    transform, = build_transforms([node], "data.transforms.train")
    assert transform(torch.tensor(3.0)) == expected
    assert nn.Sequential(as_module(transform))(torch.tensor(3.0)) == expected


@pytest.mark.parametrize(("node", "message"), [
    (f"{HERE}.scaled", "error: key[0] must be a section: `_target_: package.module.Name` and its"),
    ({"_target_": f"{HERE}.seven"}, "error: key[0] cannot be called: it is of type int"),
    ({"_target_": f"{HERE}.scaled", "bye": 4}, f"error: {HERE}.scaled has no argument 'bye'"),
    ({"_target_": f"{HERE}.makes_one", "to": 4}, f"error: {HERE}.makes_one has no argument 'to'"),
    ({"_target_": "tests.lost"}, "error: tests has no 'lost'"),
])
def test_what_is_no_transform_is_refused(node: Any, message: str) -> None:
    with pytest.raises(PreflightError) as raised:
        build_transforms([node], "key")
    assert str(raised.value).startswith(message)
