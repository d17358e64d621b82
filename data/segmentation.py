"""Images with a class for each pixel: a folder of images and a folder of masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from torchvision.tv_tensors import Mask

from drumbeat.data.image_files import suffixes
from drumbeat.data.packed import PackedStrings
from drumbeat.data.pixels import read_pixels
from drumbeat.data.regular import open_regular


class SegmentationFolder:
    """The images below `root`/`images` with their masks below `root`/`masks`: (PIL image, mask) by index, in sorted
    order. A mask is a `torchvision.tv_tensors.Mask`, uint8 [H, W], so that the transforms of torchvision.transforms.v2
    change image and mask together.

    The mask of images/a/b.jpg is masks/a/b.png: grayscale, or with a palette, and its pixels are class numbers, or
    `ignore_index` for those that do not count. `classes` are the names of the classes, from number 0 on. Images are
    read by `drumbeat.data.pixels.read_pixels`. Hidden files and folders are ignored. A model may use the number of
    classes as `num_classes: from_data`.

    Raises `FileNotFoundError` if a folder or a mask does not exist, and `ValueError` if there are no images.
    """

    def __init__(self, *, root: str, classes: Sequence[str], images: str = "images", masks: str = "masks",
                 channels: Literal[1, 3] = 3, ignore_index: int = 255) -> None:
        if isinstance(classes, str) or not 0 < len(classes) <= 256:
            raise ValueError(f"classes must be a list of 1 to 256 names, not {classes!r}")
        self.root, self.images, self.masks = Path(root), images, masks
        self.channels: int = channels
        self.ignore_index = ignore_index
        self.classes = list(classes)
        self.facts = {"num_classes": len(self.classes)}
        for folder in (images, masks):
            if not (self.root / folder).is_dir():
                raise FileNotFoundError(f"the folder {self.root / folder} does not exist")
        found = sorted(_images(self.root / images))
        if not found:
            raise ValueError(f"the folder {self.root / images} has no images ({', '.join(suffixes())})")
        for name in found:
            if not self._mask_file(name).is_file():
                raise FileNotFoundError(f"the image {images}/{name} has no mask: there is no {self._mask_file(name)}")
        self.paths = PackedStrings(found)
        """Of the images, relative to their folder."""
        self._known = np.zeros(256, dtype=np.bool_)
        self._known[:len(self.classes)] = True
        if 0 <= ignore_index < 256:
            self._known[ignore_index] = True

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, Mask]:
        """Raises `ValueError`, which names the file, if image or mask cannot be used."""
        name = self.paths[index]
        pixels = read_pixels(str(self.root / self.images / name), channels=self.channels)
        mask = self._mask(self._mask_file(name))
        if mask.shape != pixels.shape[:2]:
            raise ValueError(f"the mask {self._mask_file(name)} has {mask.shape[1]}x{mask.shape[0]} pixels, its image "
                             f"{pixels.shape[1]}x{pixels.shape[0]}")
        return Image.fromarray(pixels), Mask(mask)

    def _mask(self, file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        with open_regular(str(file)) as stream, Image.open(stream) as opened:
            if opened.mode not in ("1", "L", "P"):
                raise ValueError(f"the mask {file} is of the mode {opened.mode}; class numbers need a grayscale image "
                                 "or one with a palette")
            mask = np.array(opened, dtype=np.uint8)
        if unknown := np.flatnonzero((np.bincount(mask.ravel(), minlength=256) > 0) & ~self._known).tolist():
            raise ValueError(f"the mask {file} has the class {unknown[0]}; there are {len(self.classes)} classes from "
                             f"0 on, and {self.ignore_index} is ignored")
        return mask

    def _mask_file(self, name: str) -> Path:
        return (self.root / self.masks / name).with_suffix(".png")

    def names(self) -> Sequence[str]:
        """The name of each sample: its image's path below the folder of the images."""
        return self.paths

    def fingerprint(self) -> dict[str, str]:
        """Digests of the paths and sizes of images and masks, and of their modification times."""
        files, times = blake2b(digest_size=8), blake2b(digest_size=8)
        for name in self.paths:
            for file in (self.root / self.images / name, self._mask_file(name)):
                stat = file.stat()
                files.update(f"{name}\0{stat.st_size}\0".encode("utf-8", "surrogateescape"))
                times.update(stat.st_mtime_ns.to_bytes(16, "little"))
        return {"files": files.hexdigest(), "times": times.hexdigest()}


def _images(folder: Path) -> Iterator[str]:
    """The paths of the images below a folder."""
    known = suffixes()
    for file in folder.rglob("*"):
        name = file.relative_to(folder)
        if file.suffix.lower() in known and not any(part.startswith(".") for part in name.parts) and file.is_file():
            yield name.as_posix()
