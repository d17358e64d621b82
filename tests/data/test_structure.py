"""Samples and batches of any structure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from drumbeat.data.structure import collate, describe, is_spatial, leaves, mapped, rows, split, uncut, with_sides


class Named(NamedTuple):
    label: Any
    image: Any


class Unnamed(NamedTuple):
    x: Any
    y: Any


@dataclass(frozen=True)
class Study:
    image: Any
    age: Any
    target: Any


@pytest.mark.parametrize(("sample", "inputs", "target"), [
    ((1, 2), 1, 2),
    ([1, 2], 1, 2),
    ((1, 2, 3), (1, 2), 3),
    ({"image": 1, "label": 2}, 1, 2),
    ({"labels": 3, "input_ids": 1, "attention_mask": 2}, {"input_ids": 1, "attention_mask": 2}, 3),
    ({"x": 1, "target": 2, "label": 3}, 1, {"target": 2, "label": 3}),
    (Named(label=2, image=1), 1, 2),
    (Unnamed(1, 2), 1, 2),
    (Study(1, 2, 3), {"image": 1, "age": 2}, 3),
    (((1, 2), {"a": 3}), (1, 2), {"a": 3}),
])
def test_what_is_input_and_what_is_target(sample: Any, inputs: Any, target: Any) -> None:
    assert split(sample) == (inputs, target)
    new_inputs, new_target = (mapped(lambda number: 10 * number, side) for side in (inputs, target))
    changed = with_sides(sample, new_inputs, new_target)
    assert type(changed) is type(sample)
    assert changed == mapped(lambda number: 10 * number, sample)


@pytest.mark.parametrize("sample", [5, torch.ones(3), (1,), {"image": 1}, {"label": 1}, {}, "text"])
def test_what_is_not_a_sample(sample: Any) -> None:
    with pytest.raises(TypeError, match="a sample must be"):
        split(sample)


def test_a_batch_has_the_structure_of_its_samples() -> None:
    """Tuples stay tuples, which torch's own function makes lists."""
    samples = [{"pair": (torch.full((2,), n), np.float32(n)), "study": Study(n, float(n), "ab"[n])} for n in range(2)]
    batch = collate(samples)
    assert torch.equal(batch["pair"][0], torch.tensor([[0, 0], [1, 1]]))
    assert isinstance(batch["pair"], tuple) and batch["pair"][1].dtype == torch.float32
    assert batch["study"].image.tolist() == [0, 1] and batch["study"].target == ["a", "b"]
    assert collate([[1, 2], [3, 4]])[1].tolist() == [2, 4]
    assert collate([OrderedDict(a=1), OrderedDict(a=2)])["a"].tolist() == [1, 2]
    assert isinstance(collate([Unnamed(1, 2)] * 2), Unnamed)


@dataclass
class Output(OrderedDict[str, Any]):
    """As transformers' outputs are: a dataclass whose parts that are not None are items, too, and which forbids most
    ways to change them."""

    loss: Any = None
    logits: Any = None

    def __post_init__(self) -> None:
        for name in ("loss", "logits"):
            if (value := getattr(self, name)) is not None:
                self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        object.__setattr__(self, name, value)

    def update(self, *_: Any, **__: Any) -> None:
        raise TypeError("You cannot use update")

    pop = setdefault = update  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.loss, self.logits)


def test_outputs_of_hugging_faces_models_stay_what_they_are() -> None:
    output = Output(logits=torch.arange(6).reshape(3, 2))
    for found, expected in ((mapped(lambda one: one * 2, output), [[0, 2], [4, 6], [8, 10]]),
                            (rows(output, range(1, 2), 3), [[2, 3]])):
        assert (type(found), [*found], found.loss) == (Output, ["logits"], None)
        assert found.logits.tolist() == found["logits"].tolist() == expected
    assert [one.tolist() for one in leaves(output)] == [[[0, 1], [2, 3], [4, 5]]]


def test_images_and_masks_become_plain_tensors() -> None:
    images = [Image.new("L", (3, 2), shade) for shade in (7, 9)]
    assert torch.equal(collate(images), torch.tensor([7, 9], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 2, 3))
    masks = [tv_tensors.Mask(torch.full((2, 2), n)) for n in range(2)]
    assert type(collate(masks)) is Tensor


@pytest.mark.parametrize("samples", [[(1, 2), (1, 2, 3)], [{"a": 1}, {"b": 1}], [(1, 2), {"a": 1}]])
def test_samples_of_different_structures(samples: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"the structure .* differs from"):
        collate(samples)


def test_the_rows_of_a_batch() -> None:
    batch = {"images": [torch.ones(1, n) for n in range(4)], "pair": (torch.arange(4), Study(torch.eye(4), 2, None)),
             "scale": torch.tensor(2.0), "array": np.arange(4)}
    assert uncut(batch, 4) == ""
    part = rows(batch, range(1, 3), 4)
    assert [one.shape[1] for one in part["images"]] == [1, 2]
    assert part["pair"][0].tolist() == [1, 2] and part["pair"][1].image.shape == (2, 4) and part["pair"][1].age == 2
    assert part["scale"] is batch["scale"] and part["array"].tolist() == [1, 2]
    assert rows(batch, range(4), 4) is batch


@pytest.mark.parametrize(("batch", "message"), [
    ((torch.ones(3, 2), torch.ones(4)), "[0] is float32 [3, 2]"),
    ({"x": [1, 2]}, "['x'] is a list of 2: int, ..."),
    ({"x": object()}, "['x'] is of type object"),
])
def test_what_has_not_a_row_for_each_sample(batch: Any, message: str) -> None:
    assert uncut(batch, 4) == message


def test_an_object_cannot_be_cut() -> None:
    with pytest.raises(TypeError, match="a object cannot be cut into rows"):
        rows({"x": object()}, range(2), 4)


def test_leaves_are_found_without_building_anything() -> None:
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(2), torch.ones(1)])
    assert len([leaf for leaf in leaves({"a": packed, "b": [1, (2,)]}) if isinstance(leaf, Tensor)]) == 2


def test_targets_that_are_tied_to_places() -> None:
    boxes = tv_tensors.BoundingBoxes(torch.ones(1, 4), format="XYXY", canvas_size=(8, 8))  # type: ignore[call-overload]
    assert is_spatial(tv_tensors.Mask(torch.ones(2, 2)))
    assert is_spatial({"boxes": boxes, "labels": torch.ones(1)})
    assert not any(map(is_spatial, (1, torch.ones(2), {"a": 1, "b": [torch.ones(1)]}, "text")))


def test_a_structure_in_a_line() -> None:
    assert describe({"image": torch.ones(2, dtype=torch.uint8), "pair": (1, [None])}) == (
        "{'image': uint8 [2], 'pair': (int, a list of 1: NoneType, ...)}")
    assert describe(Study(1, 2, 3)) == "Study{'image': int, 'age': int, 'target': int}"
