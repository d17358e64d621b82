"""The small networks: their sizes and shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from drumbeat.models.cnn import CNN
from drumbeat.models.mlp import MLP
from drumbeat.models.transfer import ResNet18


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_cnn_is_that_of_the_source() -> None:
    convolutions = (3 * 9 + 1) * 16 + (16 * 9 + 1) * 32 + (32 * 9 + 1) * 64
    model = CNN(classes=10)
    assert parameters(model) == convolutions + (1024 + 1) * 500 + (500 + 1) * 10
    assert parameters(CNN(classes=10, hidden_size=512)) == convolutions + (1024 + 1) * 512 + (512 + 1) * 10
    assert [type(layer).__name__ for layer in model.features] == ["Conv2d", "ReLU", "MaxPool2d"] * 3
    assert [type(layer).__name__ for layer in model.head] == ["Flatten", "Dropout", "Linear", "ReLU", "Dropout",
                                                              "Linear"]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert CNN(classes=4, in_channels=1, image_size=28, widths=[8])(torch.zeros(2, 1, 28, 28)).shape == (2, 4)


def test_pictures_too_small_for_the_cnn_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be halved 3 times"):
        CNN(classes=10, image_size=7)


def test_the_mlp_is_that_of_the_source() -> None:
    model = MLP(in_features=784, classes=10, log_softmax=True)
    assert parameters(model) == 785 * 256 + 257 * 128 + 129 * 10
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.25, 0.25]
    outputs = model(torch.rand(3, 1, 28, 28))
    torch.testing.assert_close(outputs.exp().sum(1), torch.ones(3))
    assert MLP(in_features=6, classes=2, hidden_sizes=())(torch.zeros(1, 2, 3)).shape == (1, 2)


def test_resnet18_has_a_new_last_layer() -> None:
    with torch.device("meta"):
        model = ResNet18(classes=1)
    assert parameters(model) == 11_689_512 - 513 * 1000 + 513  # torchvision's own count, with another last layer
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"backbone", "head"}
    assert parameters(model.head) == 513
