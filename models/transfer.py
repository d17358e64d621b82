"""Torchvision networks with a new classification head, for transfer learning."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn
from torchvision import models

from drumbeat.models.pretrained import SUFFIXES, load_into, read_weights


class ConcatPool(nn.Module):
    """Features [N, C, H, W] -> [N, 2C]: the maximum of each channel over the image, then the mean.

    It flattens the image and takes `max`, because AdaptiveMaxPool2d's backward pass has no deterministic CUDA kernel.
    """

    def forward(self, features: Tensor) -> Tensor:
        flat = features.flatten(2)
        return torch.cat([flat.max(2).values, flat.mean(2)], dim=1)


class ResNet50ConcatPool(nn.Module):
    """ResNet-50 without its pooling and last layer (`backbone`), and two linear layers on pooled features (`head`).

    Images float [N, 3, H, W] -> logits [N, classes]. `weights` is one of torchvision's names (IMAGENET1K_V1), a file
    with the weights of a ResNet-50 (.pth, .pt, .ckpt, .safetensors) or of this network, with any head, or None for
    random weights. `hidden_size` is the width
    between the linear layers.
    """

    def __init__(self, *, classes: int, weights: str | None = None, dropout: float = 0.5,
                 hidden_size: int = 512) -> None:
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
        self.weights_text = load_weights(self, weights, models.ResNet50_Weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """ResNet-18 up to and including its average pooling (`backbone`), and a new linear layer (`head`).

    Images float [N, 3, H, W] -> outputs [N, classes]: logits, or values for a regression. `weights` has the same
    meaning as in `ResNet50ConcatPool`.
    """

    def __init__(self, *, classes: int, weights: str | None = None) -> None:
        super().__init__()
        network = models.resnet18()
        self.head = nn.Linear(network.fc.in_features, classes)
        network.fc = nn.Identity()
        self.backbone = network
        self.weights_text = load_weights(self, weights, models.ResNet18_Weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))  # type: ignore[no-any-return]


def load_weights(network: nn.Module, weights: str | None, known: Any) -> str:
    """Loads `weights` (a name in torchvision's enum `known`, a file, or None for none) into a network with a `head`, in
    place. Returns which parts were taken, left out and are new, as text.

    Named weights are read from torch's cache, or downloaded to it. Raises `FileNotFoundError`, which says where to put
    the file, if they can be neither read nor downloaded; and `ValueError` for an unknown name or weights that do not
    fit the network.
    """
    if weights is None:
        return ""
    path = Path(weights) if weights.endswith(SUFFIXES) else fetch_weights(weights, known)
    return load_into(network, read_weights(path), source=weights, new=("head",))


def fetch_weights(name: str, known: Any) -> Path:
    """The file with torchvision's weights `name` in torch's cache; it is downloaded if necessary."""
    if name not in known.__members__:
        raise ValueError(f"unknown weights '{name}': use {', '.join(known.__members__)}, a file, or null")
    url = known[name].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2])
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"the weights {name} are not in torch's cache, and the download failed ({error}).\n"
                f"Download {url} on a machine with internet access and put it at {path}, give a file "
                f"(model.weights=FILE), or train from scratch (model.weights=null)"
            ) from None
    return path
