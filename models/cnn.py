"""A small convolutional network for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class CNN(nn.Module):
    """3x3 convolutions, each followed by ReLU and 2x2 max pooling (`features`), and two linear layers (`head`).

    Images float [N, in_channels, image_size, image_size] -> logits [N, classes]. `widths` are the output channels of
    the convolutions, and `hidden_size` is the width between the linear layers. Dropout is applied before each linear
    layer. Raises `ValueError` if `image_size` cannot be halved `len(widths)` times.
    """

    def __init__(self, *, classes: int, in_channels: int = 3, image_size: int = 32,
                 widths: Sequence[int] = (16, 32, 64), hidden_size: int = 500, dropout: float = 0.3) -> None:
        super().__init__()
        left = image_size // 2 ** len(widths)
        if not left:
            raise ValueError(f"images of {image_size} pixels cannot be halved {len(widths)} times; give fewer widths")
        layers: list[nn.Module] = []
        for before, after in zip([in_channels, *widths], widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1] * left**2, hidden_size), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(hidden_size, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))  # type: ignore[no-any-return]
