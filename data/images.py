"""Images: folders of them as a dataset, and what is done to a batch of them on the device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class ImageFolder:
    """A folder with a folder for each class: (PIL image, class number) by index, classes and files in sorted order.

    `channels` is 1 for grayscale and 3 for RGB; every file is converted to it. Images stay PIL images until the
    transforms are done. Raises `FileNotFoundError` for a folder that is not there and `ValueError` for one that does
    not hold what it should.
    """

    def __init__(self, *, root: str, channels: Literal[1, 3] = 3) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grayscale) or 3 (RGB), not {channels}")
        folder = Path(root)
        if not folder.is_dir():
            raise FileNotFoundError(f"the image folder {root} is not there")
        self.mode = "L" if channels == 1 else "RGB"
        self.classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        if not self.classes:
            raise ValueError(f"the image folder {root} holds no class folders (expected {root}/<class>/<image>)")
        self.files: list[str] = []
        labels: list[int] = []
        for number, name in enumerate(self.classes):
            files = sorted(str(path) for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
            if not files:
                raise ValueError(f"the class folder {folder / name} holds no images ({', '.join(SUFFIXES)})")
            self.files += files
            labels += [number] * len(files)
        self.labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Raises `ValueError` that names the file where it cannot be decoded."""
        path = self.files[index]
        try:
            with Image.open(path) as image:
                return ImageOps.exif_transpose(image).convert(self.mode), int(self.labels[index])
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"cannot read the image {path}: {error}") from error


class Normalize(nn.Module):
    """uint8 images [N, C, H, W] -> float32 [N, len(mean), H, W]: scaled to 0..1, less `mean`, over `std`.

    One channel is spread over all of them, so a grayscale image travels to the device as one byte a pixel.
    """

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"mean and std need the same length and positive deviations, not {mean} and {std}")
        scale = 1 / (255 * torch.tensor(std))
        self.register_buffer("scale", scale.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", (-torch.tensor(mean) / torch.tensor(std)).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        return torch.addcmul(shift, images.to(scale.dtype), scale)
