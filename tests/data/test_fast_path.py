"""Which sets a loader reads as pixels: not those whose class has changed what a sample is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.tv_tensors import Mask

from drumbeat.data import ImageFolder, Split
from drumbeat.data.fast_path import has_pixels
from drumbeat.data.fused import fuse
from drumbeat.data.loader import BatchFetcher


class OwnTarget(ImageFolder):
    """The image, whose left half is white, is its own mask."""

    def target(self, index: int) -> Any:
        return Mask(torch.from_numpy(self.pixels(index) > 0))


class OwnSample(ImageFolder):
    """Black images."""

    def __getitem__(self, index: int) -> Any:
        image, target = super().__getitem__(index)
        return image.point(lambda value: 0), target  # type: ignore[union-attr]


class OwnPixels(OwnSample):
    """Gray images: what is read as pixels is defined last."""

    def pixels(self, index: int) -> Any:
        return np.full_like(super().pixels(index), 100)


class Named:
    """A set whose samples are its pixels and targets, without a class between."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self.pixels(index), self.target(index)

    def pixels(self, index: int) -> Any:
        return np.zeros((4, 4), np.uint8)

    def target(self, index: int) -> int:
        return 0


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Eight images whose left half is white."""
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, :4] = 255
    (tmp_path / "all").mkdir()
    for number in range(8):
        Image.fromarray(pixels).save(tmp_path / "all" / f"{number}.png")
    return str(tmp_path)


def test_what_is_read_as_pixels(root: str) -> None:
    found = {kind.__name__: has_pixels(kind(root=root, channels=1))
             for kind in (ImageFolder, OwnTarget, OwnSample, OwnPixels)}
    assert found == {"ImageFolder": True, "OwnTarget": True, "OwnSample": False, "OwnPixels": True}
    assert has_pixels(Named())
    assert not has_pixels([(1, 2)])
    parts = [has_pixels(Split(of=Split(of=kind(root=root), part="a", fractions={"a": 1}), part="a",
                              fractions={"a": 1})) for kind in (ImageFolder, OwnSample)]
    assert parts == [True, False]


@pytest.mark.parametrize("fused", [False, True])
def test_a_mask_is_flipped_with_its_image(root: str, fused: bool) -> None:
    transforms = [v2.RandomHorizontalFlip()]
    fetch = BatchFetcher(OwnTarget(root=root, channels=1), indices=lambda positions: positions, seed=1,
                         transforms=fuse(transforms) if fused else transforms)
    batch = fetch.__getitems__(range(8))
    assert torch.equal(batch.inputs[:, 0] > 0, batch.targets)
    assert {*batch.targets[:, 0, 0].tolist()} == {True, False}


def test_the_samples_of_a_subclass_are_its_own(root: str) -> None:
    for samples in (OwnSample(root=root), Split(of=OwnSample(root=root), part="a", fractions={"a": 1})):
        fetch = BatchFetcher(samples, indices=lambda positions: positions, transforms=fuse([v2.Resize(4)]))
        assert fetch.__getitems__(range(2)).inputs.max() == 0
