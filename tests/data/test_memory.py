"""Datasets in memory: samples by index, and as whole batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from drumbeat.data.memory import Arrays


def test_a_sample_and_a_batch_have_the_same_rows() -> None:
    arrays = Arrays(torch.arange(12.0).reshape(4, 3), torch.tensor([0, 1, 1, 0]))
    assert len(arrays) == 4
    inputs, target = arrays[2]
    assert (inputs.tolist(), int(target)) == ([6, 7, 8], 1)
    batch, targets = arrays.fetch(np.array([3, 2, 3]))
    assert batch.tolist() == [[9, 10, 11], [6, 7, 8], [9, 10, 11]]
    assert targets.tolist() == [0, 1, 0]


def test_a_batch_is_a_copy() -> None:
    arrays = Arrays(torch.zeros(2, 1), torch.zeros(2))
    batch, _ = arrays.fetch(np.array([0]))
    batch += 1
    assert arrays.inputs.tolist() == [[0], [0]]


def test_as_many_targets_as_inputs_are_needed() -> None:
    with pytest.raises(ValueError, match="there are 3 inputs, but 2 targets"):
        Arrays(torch.zeros(3), torch.zeros(2))
