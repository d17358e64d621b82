"""The networks for transfer learning: layers, ways to load weights, and frozen parts that do not change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from drumbeat.models.transfer import ConcatPool, ResNet18, ResNet50ConcatPool, fetch_weights
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


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = models.resnet50()
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    model = ResNet50ConcatPool(classes=2, weights=str(file))
    assert torch.equal(model.backbone.conv1.weight, network.conv1.weight)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"layer.weight": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match="do not fit this network"):
        ResNet50ConcatPool(classes=2, weights=str(file))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown weights 'IMAGENET': use IMAGENET1K_V1, IMAGENET1K_V2"):
        fetch_weights("IMAGENET", models.ResNet50_Weights)


def test_weights_in_the_cache_are_found_and_others_say_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(FileNotFoundError, match="put it at") as caught:
        fetch_weights("IMAGENET1K_V1", models.ResNet50_Weights)
    assert str(cached) in str(caught.value)
    assert "model.weights=null" in str(caught.value)
    cached.write_bytes(b"")
    assert fetch_weights("IMAGENET1K_V1", models.ResNet50_Weights) == cached


def test_resnet18_has_a_new_last_layer() -> None:
    with torch.device("meta"):
        model = ResNet18(classes=1)
    assert parameters(model) == 11_689_512 - 513 * 1000 + 513  # torchvision's own count, with another last layer
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"backbone", "head"}
    assert parameters(model.head) == 513
