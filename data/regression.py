"""Datasets for regression: images and the numbers to predict from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from hashlib import file_digest
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from drumbeat.data.cache import Pixels
from drumbeat.data.images import read_pixels
from drumbeat.data.order import key
from drumbeat.data.packed import PackedStrings
from drumbeat.data.tables import Table, found, short


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


class ImageRegression:
    """The rows of a CSV, TSV or JSON-lines file: (PIL image, float32 [V]) by index.

    `image` is the column with the image files. Relative paths start from the folder `root`, by default the folder of
    the table. `columns` are the columns with the V numbers to predict. Images are read by
    `drumbeat.data.images.read_pixels`.

    Raises `FileNotFoundError` if the table does not exist; and `ValueError`, which names the line and the column, for
    an invalid number or a missing image.
    """

    def __init__(self, *, file: str, columns: Sequence[str], image: str = "file", root: str | None = None,
                 channels: Literal[1, 3] = 3) -> None:
        if isinstance(columns, str) or not columns:
            raise ValueError(f"columns must be a list of one column or more, not {columns!r}")
        self.file = found(file)
        self.root = self.file.parent if root is None else Path(root)
        self.channels: int = channels
        self.value_names = list(columns)
        table = Table(self.file)
        *numbers, files = map(_joined, zip(*table.blocks([*columns, image], "images"), strict=True))
        self.targets = np.array([_numbers(table, name, column)
                                 for name, column in zip(columns, numbers, strict=True)], np.float32).T
        """float32 [n, V]."""
        for row, name in enumerate(files):
            if not (self.root / name).is_file():
                raise table.fault(row, image, f"there is no image {short(name)} in {self.root}",
                                  "correct it, remove the row, or give the folder of the images as root")
        self.paths = PackedStrings(files)
        """As in the table."""

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, Tensor]:
        """Raises `ValueError`, which names the file, if the image cannot be decoded."""
        return Image.fromarray(self._pixels(index)), torch.from_numpy(self.targets[index].copy())

    def _pixels(self, index: int) -> Pixels:
        return read_pixels(str(self.root / self.paths[index]), channels=self.channels)

    def names(self) -> Sequence[str]:
        """The name of each sample: its image file as in the table."""
        return self.paths

    def fingerprint(self) -> dict[str, str]:
        """A digest of the table."""
        return {"files": self._content, "times": ""}

    @cached_property
    def _content(self) -> str:
        with open(self.file, "rb") as table:
            return file_digest(table, "blake2b").hexdigest()[:16]


def _joined(blocks: Sequence[list[str]]) -> list[str]:
    return list(chain.from_iterable(blocks))


def _numbers(table: Table, name: str, column: Sequence[str]) -> NDArray[np.float64]:
    """A column as numbers, [n]. Raises ValueError, which names the line of the first invalid number."""
    values = np.empty(len(column))
    for row, text in enumerate(column):
        try:
            values[row] = float(text)
        except ValueError:
            values[row] = math.nan
        if not math.isfinite(values[row]):
            raise table.fault(row, name, f"{short(text)} is not a number", "correct it, or remove the row")
    return values
