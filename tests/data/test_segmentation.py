"""Images with masks: pairs, class numbers, what is refused, and transforms that change both together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.tv_tensors import Mask

from drumbeat.data import SegmentationFolder
from drumbeat.data.cache import open_cache
from drumbeat.data.fused import fuse
from drumbeat.data.loader import BatchFetcher

CLASSES = ["ground", "disc"]


def write(folder: Path, name: str, mask: Image.Image, size: tuple[int, int] = (8, 6)) -> None:
    """An image that is red where its mask is not 0."""
    for kind in ("images", "masks"):
        (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    if mask.size == size and mask.mode in "LP1":
        pixels[..., 0] = np.where(np.asarray(mask) > 0, 255, 0)
    Image.fromarray(pixels).save((folder / "images" / name).with_suffix(".bmp"))
    mask.save((folder / "masks" / name).with_suffix(".png"))


def mask_of(value: int = 1, mode: str = "L") -> Image.Image:
    """The left half is `value`, the rest 0."""
    values = np.zeros((6, 8), np.uint8)
    values[:, :4] = value
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.fromarray(values, "P")
        image.putpalette([10, 20, 30] * 256)
    return image.convert(mode) if mode not in "LP" else image


def folder_of(root: Path) -> SegmentationFolder:
    return SegmentationFolder(root=str(root), classes=CLASSES)


def test_the_values_of_the_classes(tmp_path: Path) -> None:
    write(tmp_path, "a", mask_of(200))
    write(tmp_path, "b", mask_of(255))
    samples = SegmentationFolder(root=str(tmp_path), classes=CLASSES, values=[200, 0])
    assert [samples[index][1].unique().tolist() for index in range(2)] == [[0, 1], [1, 255]]
    assert SegmentationFolder(root=str(tmp_path), classes=CLASSES, values=[0, 255])[1][1].unique().tolist() == [0, 1]
    with pytest.raises(ValueError, match="name those of the classes"):
        folder_of(tmp_path)[0]
    for values in ([0], [0, 0], [0, 256], [0, 1, 2]):
        with pytest.raises(ValueError, match="values must be one number from 0 to 255 for each of 2 classes"):
            SegmentationFolder(root=str(tmp_path), classes=CLASSES, values=values)


def test_images_and_their_masks(tmp_path: Path) -> None:
    write(tmp_path, "b", mask_of(255))
    write(tmp_path, "a/c", mask_of(mode="P"))
    write(tmp_path, "a/d", mask_of(255, "1"))
    (tmp_path / "images" / ".hidden.png").touch()
    (tmp_path / "images" / "@eaDir").mkdir()
    mask_of().save(tmp_path / "images" / "@eaDir" / "b.png")
    samples = folder_of(tmp_path)
    assert [*samples.names()] == ["a/c.bmp", "a/d.bmp", "b.bmp"]
    image, mask = samples[0]
    assert (image.mode, image.size, type(mask), mask.dtype) == ("RGB", (8, 6), Mask, torch.uint8)
    assert torch.equal(torch.tensor(np.asarray(image)[..., 0] > 0), mask > 0)
    assert [samples[index][1].unique().tolist() for index in range(3)] == [[0, 1], [0, 1], [0, 255]]
    assert samples.facts == {}
    assert samples.notes() == ["left out 1 @eaDir"]


@pytest.mark.parametrize("fused", [False, True])
def test_transforms_change_image_and_mask_together(tmp_path: Path, fused: bool) -> None:
    for number in range(8):
        write(tmp_path, str(number), mask_of())
    transforms = [v2.RandomHorizontalFlip(), v2.RandomCrop(5)]
    fetch = BatchFetcher(folder_of(tmp_path), indices=lambda positions: positions, seed=1,
                         transforms=fuse(transforms) if fused else transforms)
    batch = fetch.__getitems__(range(8))
    assert type(batch.targets) is torch.Tensor
    assert (batch.targets.dtype, batch.targets.shape) == (torch.uint8, (8, 5, 5))
    assert torch.equal(batch.inputs[:, 0] > 0, batch.targets > 0)
    assert len({tuple(mask.flatten().tolist()) for mask in batch.targets}) > 1  # not the same for all


@pytest.mark.parametrize(("mask", "message"), [
    (mask_of(2), r"masks/a\.png has the class 2; there are 2 classes from 0 on, and 255 is ignored"),
    (mask_of(mode="RGB"), r"masks/a\.png is of the mode RGB; class numbers need a grayscale image"),
    (Image.new("L", (6, 8)), r"masks/a\.png has 6x8 pixels, its image 8x6"),
])
def test_masks_that_cannot_be_used(tmp_path: Path, mask: Image.Image, message: str) -> None:
    write(tmp_path, "a", mask)
    with pytest.raises(ValueError, match=message):
        folder_of(tmp_path)[0]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder \S+/images does not exist"):
        folder_of(tmp_path)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"the folder \S+/images has no images"):
        folder_of(tmp_path)
    write(tmp_path, "a", mask_of())
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"the image images/a\.bmp has no mask: there is no \S+/masks/a\.png"):
        folder_of(tmp_path)
    with pytest.raises(ValueError, match="classes must be a list of 1 to 256 names, not 'disc'"):
        SegmentationFolder(root=str(tmp_path), classes="disc")


def test_the_fingerprint_depends_on_images_and_masks(tmp_path: Path) -> None:
    write(tmp_path, "a", mask_of())
    before = folder_of(tmp_path).fingerprint()
    assert folder_of(tmp_path).fingerprint() == before
    Image.effect_noise((8, 6), 9).save(tmp_path / "masks" / "a.png")
    assert folder_of(tmp_path).fingerprint()["files"] != before["files"]


def test_two_images_with_one_mask(tmp_path: Path) -> None:
    write(tmp_path, "a", mask_of())
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a.jpg")
    with pytest.raises(ValueError, match=r"the images images/a\.bmp and images/a\.jpg have the same mask \S+/masks/a"):
        folder_of(tmp_path)


def test_images_of_sixteen_bits_keep_them(tmp_path: Path) -> None:
    """And a few files of 8 bits tell that others are an error, as in all sets of image files."""
    write(tmp_path, "a", mask_of())
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 85
    Image.fromarray(values).save(tmp_path / "images" / "b.png")
    mask_of().save(tmp_path / "masks" / "b.png")
    image, mask = SegmentationFolder(root=str(tmp_path), classes=CLASSES, channels=1)[1]
    assert torch.equal(image, torch.from_numpy(values.astype(np.float32) / 65535)[None])
    assert mask.shape == (6, 8)
    ranged = SegmentationFolder(root=str(tmp_path), classes=CLASSES, channels=1, depth=8, value_range=[0, 4095])
    assert np.asarray(ranged[1][0]).max() == round(47 * 85 / 4095 * 255)
    for number in range(40):
        write(tmp_path, f"c{number:02}", mask_of())
    many = folder_of(tmp_path)
    assert (many.depth, many.facts) == (None, {})
    with pytest.raises(ValueError, match="it has 16 bits per value, and the files that were looked at before have 8"):
        many[1]


def test_images_are_read_from_the_cache(tmp_path: Path) -> None:
    write(tmp_path, "a", mask_of())
    samples = folder_of(tmp_path)
    samples.cache = open_cache(samples, tmp_path / "cache", workers=0)
    before = samples[0]
    (tmp_path / "images" / "a.bmp").unlink()
    assert np.array_equal(samples[0][0], before[0]) and torch.equal(samples[0][1], before[1])
