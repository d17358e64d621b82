"""The convolutional network: its size, its layers and the smallest images."""

from __future__ import annotations

import pytest
import torch

from drumbeat.models.cnn import CNN
from tests.models.sizes import parameters


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
