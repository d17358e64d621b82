"""A small convolutional network for small pictures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class CNN(nn.Module):
    """Convolutions of 3x3, each followed by ReLU and 2x2 max pooling (`features`), and two linear layers (`head`).

    Pictures float [N, channels, side, side] -> logits [N, classes]. `widths` are the channels of each convolution;
    `hidden` is the width between the linear layers. Dropout stands before each of them. Raises `ValueError` for a side
    that cannot be halved so often.
    """

    def __init__(self, *, classes: int, channels: int = 3, side: int = 32, widths: Sequence[int] = (16, 32, 64),
                 hidden: int = 500, dropout: float = 0.3) -> None:
        super().__init__()
        left = side // 2 ** len(widths)
        if not left:
            raise ValueError(f"pictures of {side} pixels cannot be halved {len(widths)} times; give fewer widths")
        layers: list[nn.Module] = []
        for before, after in zip([channels, *widths], widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1] * left**2, hidden), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(hidden, classes),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.features(pictures))  # type: ignore[no-any-return]
