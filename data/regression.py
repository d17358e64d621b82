"""Images and the numbers that are to be read off them: for regression."""

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
    """`n` pictures of vessels as simple as can be, drawn when they are asked for: black, white from the top down to a
    random level. (PIL image, gray, and level) by index; the level is a share of the height, float32 [1] in [0, 1).

    A picture depends on its index and the `seed` alone. Sets of other seeds are other pictures.
    """

    value_names = ("level",)

    def __init__(self, *, n: int = 2000, side: int = 900, seed: int = 0) -> None:
        if n < 0 or side < 1 or seed < 0:
            raise ValueError(f"n and seed count from 0, side from 1, not {n}, {seed} and {side}")
        self.n = n
        self.side = side
        self.seed = seed

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Image.Image, Tensor]:
        """Raises IndexError outside 0 to n - 1."""
        if not 0 <= index < self.n:
            raise IndexError(f"picture {index} does not lie in 0 to {self.n - 1}")
        level = (key(self.seed, "level", index) >> 11) / 2**53
        pixels = np.zeros((self.side, self.side), np.uint8)
        pixels[:int(level * self.side)] = 255
        return Image.fromarray(pixels), torch.tensor([level], dtype=torch.float32)

    def fingerprint(self) -> dict[str, str]:
        return {"files": f"fill level 1, side {self.side}, seed {self.seed}", "times": ""}


class ImageRegression:
    """The rows of a CSV, TSV or JSON-lines file as (PIL image, float32 [V]) by index: an image file and its numbers.

    `image` is the column with the files, relative to the folder `root`, or else to the folder that the table is in;
    `columns` names that of each number. Images are read as `drumbeat.data.images.read_pixels` says.

    Raises `FileNotFoundError` for a table that is not there; and `ValueError`, with the line and the column, for a
    number that is none and an image that is not there.
    """

    def __init__(self, *, file: str, columns: Sequence[str], image: str = "file", root: str | None = None,
                 channels: Literal[1, 3] = 3) -> None:
        if isinstance(columns, str) or not columns:
            raise ValueError(f"columns is a list of one column or more, not {columns!r}")
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
                                  "correct it, remove the row, or say where the images are: root")
        self.paths = PackedStrings(files)
        """As the table has them."""

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, Tensor]:
        """Raises `ValueError` that names the file where it cannot be decoded."""
        return Image.fromarray(self._pixels(index)), torch.from_numpy(self.targets[index].copy())

    def _pixels(self, index: int) -> Pixels:
        return read_pixels(str(self.root / self.paths[index]), channels=self.channels)

    def names(self) -> Sequence[str]:
        """What each sample is called: its image, as the table has it."""
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
    """A column as numbers, [n]. Raises ValueError with the line of the first that is none."""
    values = np.empty(len(column))
    for row, text in enumerate(column):
        try:
            values[row] = float(text)
        except ValueError:
            values[row] = math.nan
        if not math.isfinite(values[row]):
            raise table.fault(row, name, f"{short(text)} is not a number", "correct it, or remove the row")
    return values
