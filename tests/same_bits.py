"""Compares values of any structure to the bit."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten_with_path

from drumbeat.trainers.lost_state import same_bits


def assert_same_bits(one: Any, other: Any) -> None:
    """Fails unless both have the same structure and the same leaves; tensors have the same type and bits."""
    leaves, structure = tree_flatten_with_path(one)
    others, other_structure = tree_flatten_with_path(other)
    assert structure == other_structure
    for (path, leaf), (_, expected) in zip(leaves, others, strict=True):
        assert same_bits(leaf, expected) if isinstance(leaf, Tensor) else repr(leaf) == repr(expected), path
