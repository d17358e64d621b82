"""What a loader worker sends: small tensors as bytes, of any type and shape, and all others as torch sends them."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

from drumbeat.data.small_tensors import LARGEST, _reduced

GRID = torch.arange(12).reshape(3, 4)


@pytest.mark.parametrize("tensor", [
    GRID, GRID.float() / 7, GRID.bfloat16(), GRID > 3, GRID.to(torch.uint8), torch.tensor(3.5), torch.zeros(0, 5),
    GRID.T, GRID[:, 1], GRID[1:2].expand(2, 4),
    torch.zeros(1, 2)[:, 0], GRID[3:], torch.tensor([1 + 2j]).conj().imag], ids=str)
def test_a_small_tensor_arrives_as_it_was(tensor: Tensor) -> None:
    rebuild, parts = _reduced(tensor)
    arrived = rebuild(*pickle.loads(pickle.dumps(parts)))
    assert (arrived.dtype, arrived.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(arrived, tensor)
    arrived.zero_()  # it is the rank's own


def test_a_row_is_sent_without_its_block() -> None:
    _, parts = _reduced(torch.zeros(1000, 32)[7])
    assert len(pickle.dumps(parts)) < 500


@pytest.mark.parametrize("tensor", [
    torch.zeros(LARGEST + 1, dtype=torch.uint8), torch.zeros(3, requires_grad=True),
    torch.zeros(3, dtype=torch.complex64), torch.eye(3).to_sparse()], ids=["large", "trained", "complex", "sparse"])
def test_torch_sends_the_others(tensor: Tensor) -> None:
    assert _reduced(tensor)[0] is reduce_tensor(tensor)[0]


def test_torch_sends_a_nested_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a prototype
        tensor = torch.nested.as_nested_tensor([torch.zeros(2), torch.zeros(3)])
    assert _reduced(tensor)[0] is reduce_tensor(tensor)[0]
