"""Torchvision networks with a new classification head, for transfer learning."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision import models


class ConcatPool(nn.Module):
    """Features [N, C, H, W] -> [N, 2C]: the maximum of each channel over the image, then the mean.

    It flattens the image and takes `max`, because AdaptiveMaxPool2d's backward pass has no deterministic CUDA kernel.
    """

    def forward(self, features: Tensor) -> Tensor:
        flat = features.flatten(2)
        return torch.cat([flat.max(2).values, flat.mean(2)], dim=1)


class ResNet50ConcatPool(nn.Module):
    """ResNet-50 without its pooling and last layer (`backbone`), and two linear layers on pooled features (`head`).

    Images float [N, 3, H, W] -> logits [N, classes]. `hidden_size` is the width between the linear layers. The weights
    are random; those of a ResNet-50 fit `backbone` (`initialize` in a config).
    """

    def __init__(self, *, classes: int, dropout: float = 0.5, hidden_size: int = 512) -> None:
        super().__init__()
        network = models.resnet50()
        layers = [(name, module) for name, module in network.named_children() if name not in ("avgpool", "fc")]
        self.backbone = nn.Sequential(OrderedDict(layers))
        width = 2 * network.fc.in_features
        self.head = nn.Sequential(
            ConcatPool(), nn.Flatten(),
            nn.BatchNorm1d(width), nn.Dropout(dropout), nn.Linear(width, hidden_size), nn.ReLU(),
            nn.BatchNorm1d(hidden_size), nn.Dropout(dropout), nn.Linear(hidden_size, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """ResNet-18 up to and including its average pooling (`backbone`), and a new linear layer (`head`).

    Images float [N, 3, H, W] -> outputs [N, classes]: logits, or values for a regression. The weights are random, as
    in `ResNet50ConcatPool`.
    """

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        network = models.resnet18()
        self.head = nn.Linear(network.fc.in_features, classes)
        network.fc = nn.Identity()
        self.backbone = network

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))  # type: ignore[no-any-return]
