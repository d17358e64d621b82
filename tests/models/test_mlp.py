"""The multilayer perceptron: its size, its dropout and its outputs."""

from __future__ import annotations

import torch
from torch import nn

from drumbeat.models.mlp import MLP
from tests.models.sizes import parameters


def test_the_mlp_is_that_of_the_source() -> None:
    model = MLP(in_features=784, classes=10, log_softmax=True)
    assert parameters(model) == 785 * 256 + 257 * 128 + 129 * 10
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.25, 0.25]
    outputs = model(torch.rand(3, 1, 28, 28))
    torch.testing.assert_close(outputs.exp().sum(1), torch.ones(3))
    assert MLP(in_features=6, classes=2, hidden_sizes=())(torch.zeros(1, 2, 3)).shape == (1, 2)
