"""Inputs of a batch on their way to the model: transforms, memory format and precision."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.data.text import Padded
from drumbeat.trainers.forward import Forward, call

CPU = torch.device("cpu")


class Scale(nn.Module):
    """Multiplies images, also those of a dict, by a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
        if isinstance(inputs, dict):
            return {name: value * self.factor for name, value in inputs.items()}
        return inputs * self.factor


@dataclass
class Outputs:
    """As models of Hugging Face return them."""

    logits: Tensor
    hidden: tuple[Tensor, ...] = ()


def forward(*, channels_last: bool = False, bf16: bool = False) -> Forward:
    return Forward(device=CPU, transforms=Scale(), channels_last=channels_last, bf16=bf16)


def test_batch_transforms_are_applied_without_a_gradient() -> None:
    batch = torch.arange(6.0).view(2, 3)
    inputs = forward().inputs(batch)
    assert inputs.tolist() == [[0, 2, 4], [6, 8, 10]]
    assert not inputs.requires_grad


def test_only_batches_of_images_get_the_other_memory_format() -> None:
    images, rows = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4)
    moved = forward(channels_last=True).inputs(images)
    assert moved.stride() == (48, 1, 12, 3)
    assert torch.equal(moved, images * 2)
    assert forward(channels_last=True).inputs(rows).is_contiguous()
    assert forward().inputs(images).stride() == (48, 16, 4, 1)


def test_inputs_may_be_several_tensors() -> None:
    inputs = forward(channels_last=True).inputs({"a": torch.ones(2), "b": torch.zeros(1, 1)})
    assert {name: value.tolist() for name, value in inputs.items()} == {"a": [2, 2], "b": [[0]]}


def test_the_forward_pass_is_in_bfloat16_if_asked() -> None:
    layer, rows = nn.Linear(2, 2), torch.ones(1, 2)
    found = []
    for bf16 in (False, True):
        with forward(bf16=bf16).autocast():
            found.append(layer(rows).dtype)
    assert found == [torch.float32, torch.bfloat16]
    assert layer(rows).dtype == torch.float32


def test_how_a_model_is_called() -> None:
    """A dict by its names, a tuple by its order; texts, which are a named tuple, and lists as one argument."""
    def model(*values: Any, **named: Any) -> Any:
        return values, named

    one, texts = torch.ones(1), Padded(torch.ones(1, 2), torch.ones(1))
    assert call(model, {"ids": one, "mask": one}) == ((), {"ids": one, "mask": one})
    assert call(model, (one, one)) == ((one, one), {})
    for value in (one, texts, [one, one]):
        (got,), named = call(model, value)
        assert got is value and named == {}


def test_outputs_are_the_mean_of_all_views() -> None:
    """In evaluation; whole numbers are those of the inputs as they are."""
    several = Forward(device=CPU, transforms=Scale(), channels_last=False, bf16=False,
                      views=[lambda values: values.flip(1), lambda values: values + 1])
    found = several.outputs(lambda values: {"first": values[:, 0], "rank": values.long(), "name": "x"},
                            torch.arange(6.0).view(2, 3))
    assert found["first"].tolist() == pytest.approx([(0 + 4 + 1) / 3, (6 + 10 + 7) / 3])
    assert found["rank"].tolist() == [[0, 2, 4], [6, 8, 10]]
    assert found["name"] == "x"
    assert forward().outputs(lambda values: values[:, 0], torch.arange(6.0).view(2, 3)).tolist() == [0, 6]


def test_views_of_a_model_with_a_structure_of_its_own() -> None:
    """They are never left out in silence."""
    several = Forward(device=CPU, transforms=nn.Sequential(), channels_last=False, bf16=False,
                      views=[lambda values: values * 3])
    found = several.outputs(lambda values: Outputs(values, (values,)), torch.ones(2))
    assert (found.logits.tolist(), found.hidden[0].tolist()) == ([2, 2], [2, 2])
    with pytest.raises(TypeError, match="this one returns SimpleNamespace: no tensor"):
        several.outputs(lambda values: SimpleNamespace(logits=values), torch.ones(2))
