"""Which tensor a task takes from what a model returns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from drumbeat.trainers.tasks.outputs import main_output

TENSOR, OTHER = torch.zeros(2, 3), torch.ones(2, 3)


@pytest.mark.parametrize("outputs", [
    TENSOR, {"logits": TENSOR, "hidden": OTHER}, {"aux": OTHER, "out": TENSOR}, SimpleNamespace(logits=TENSOR),
    {"scores": TENSOR, "name": "x"}, (TENSOR, None), [TENSOR],
])
def test_the_tensor_itself_or_by_its_name_or_the_only_one(outputs: Any) -> None:
    assert main_output(outputs) is TENSOR


@pytest.mark.parametrize("outputs", [(TENSOR, OTHER), {"a": TENSOR, "b": OTHER}, None, {"loss": 1.0}])
def test_one_of_several_is_not_guessed(outputs: Any) -> None:
    with pytest.raises(TypeError, match="this task needs one tensor, or one under the name logits or out"):
        main_output(outputs)
