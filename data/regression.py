"""A synthetic dataset for regression: images and the number to predict from each."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from drumbeat.data.order import key


class FillLevel:
    """`n` synthetic images of a vessel, drawn on access: black, and white from the top down to a random level. By
    index: (grayscale PIL image, level). The level is a fraction of the height, float32 [1] in [0, 1).

    An image depends only on its index and the `seed`. Datasets with different seeds have different images.
    """

    value_names = ("level",)

    def __init__(self, *, n: int = 2000, image_size: int = 900, seed: int = 0) -> None:
        if n < 0 or image_size < 1 or seed < 0:
            raise ValueError(f"n and seed must be at least 0 and image_size at least 1, not {n}, {seed} and "
                             f"{image_size}")
        self.n = n
        self.image_size = image_size
        self.seed = seed

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Image.Image, Tensor]:
        """Raises IndexError outside 0 to n - 1."""
        if not 0 <= index < self.n:
            raise IndexError(f"image {index} is not in 0 to {self.n - 1}")
        level = (key(self.seed, "level", index) >> 11) / 2**53
        pixels = np.zeros((self.image_size, self.image_size), np.uint8)
        pixels[:int(level * self.image_size)] = 255
        return Image.fromarray(pixels), torch.tensor([level], dtype=torch.float32)

    def fingerprint(self) -> dict[str, str]:
        return {"files": f"fill level 1, image size {self.image_size}, seed {self.seed}", "times": ""}
