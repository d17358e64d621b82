"""Values as bytes: what comes back is what was sent, to the bit, and nothing is pickled."""

from __future__ import annotations

import math

import pytest
import torch

from drumbeat.trainers.checkpoints.staging import NAMES
from drumbeat.trainers.messages import packed, unpacked
from tests.same_bits import assert_same_bits


def test_tensors_of_all_types_and_shapes_come_back() -> None:
    values = [torch.arange(6).view(2, 3).to(dtype) for dtype in NAMES]
    value = {"all": values, "row": torch.rand(4, 6).T[1], "number": torch.tensor(2.5), "empty": torch.zeros(0, 4),
             "expanded": torch.ones(1).expand(3)}
    assert_same_bits(unpacked(packed(value)), value)


def test_plain_values_come_back() -> None:
    value = [None, True, 3, 0.1, math.nan, -math.inf, "a\n\N{SNOWMAN}", (1, [2, (3,)]), {"b": {"c": ()}}, {1: 2}]
    assert repr(unpacked(packed(value))) == repr(value)


def test_a_tensor_that_occurs_twice_is_sent_once() -> None:
    one = torch.zeros(1000)
    assert len(packed([one, one])) < 1000 * 4 + 200
    first, second = unpacked(packed([one, one]))
    assert_same_bits([first, second], [one, one])


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match=r"value\.1 is of type builtins\.object"):
        packed([1, object()])
