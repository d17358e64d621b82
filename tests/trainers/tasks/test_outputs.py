"""The tensor that a task of Drumbeat's takes from what a model returns."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch

from drumbeat.trainers.tasks import MultiLabel, Regression
from drumbeat.trainers.tasks.outputs import main_output

ONE, OTHER = torch.ones(2, 3), torch.zeros(2, 3)


class Inception(NamedTuple):
    """As torchvision's model returns in training."""

    logits: Any
    aux_logits: Any


class ModelOutput(OrderedDict[str, Any]):
    """As Hugging Face's models return."""


@pytest.mark.parametrize("outputs", [
    ONE, {"out": ONE, "aux": OTHER}, ModelOutput(loss=None, logits=ONE, hidden_states=(OTHER, OTHER)),
    Inception(ONE, OTHER), (ONE,), {"found": [ONE, "text"]},
])
def test_which_tensor_is_taken(outputs: Any) -> None:
    assert main_output(outputs) is ONE
    assert torch.equal(Regression().losses(outputs, OTHER), torch.ones(2))
    assert MultiLabel().losses(outputs, OTHER).shape == (2,)


@pytest.mark.parametrize("outputs", [(ONE, OTHER), {"a": ONE, "b": OTHER}, "text"])
def test_what_is_ambiguous_is_refused(outputs: Any) -> None:
    with pytest.raises(TypeError, match=r"the model returns .*, and this task needs one tensor, or one under the name"):
        main_output(outputs)
