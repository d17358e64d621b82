"""The networks for transfer learning: their layers and sizes."""

from __future__ import annotations

import torch
from torch import nn
from torchvision import models

from drumbeat.models.transfer import ConcatPool, ResNet18, ResNet50ConcatPool
from tests.models.sizes import parameters


def test_the_head_is_that_of_the_source() -> None:
    with torch.device("meta"):
        model = ResNet50ConcatPool(classes=2)
    kinds = [type(layer) for layer in model.head]
    assert kinds == [ConcatPool, nn.Flatten, nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout,
                     nn.Linear]
    assert (model.head[2].num_features, model.head[4].in_features, model.head[4].out_features) == (4096, 4096, 512)
    assert (model.head[3].p, model.head[8].out_features) == (0.5, 2)
    resnet = sum(p.numel() for name, p in models.resnet50().named_parameters() if not name.startswith("fc."))
    assert sum(p.numel() for p in model.backbone.parameters()) == resnet


def test_pooling_is_the_maximum_then_the_mean() -> None:
    features = torch.randn(2, 3, 4, 5)
    pooled = ConcatPool()(features.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(pooled, torch.cat([features.amax((2, 3)), features.mean((2, 3))], 1))


def test_resnet18_has_a_new_last_layer() -> None:
    with torch.device("meta"):
        model = ResNet18(classes=1)
    assert parameters(model) == 11_689_512 - 513 * 1000 + 513  # torchvision's own count, with another last layer
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"backbone", "head"}
    assert parameters(model.head) == 513
