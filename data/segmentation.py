"""Images with a class for each pixel: a folder of images and a folder of masks."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.tv_tensors import Mask

from drumbeat.data.image_files import Scan, suffixes
from drumbeat.data.images import ImageFiles
from drumbeat.data.order import Integers
from drumbeat.data.pixels import as_image
from drumbeat.data.regular import open_regular


class SegmentationFolder(ImageFiles):
    """The images below `root`/`images` with their masks below `root`/`masks`: (image, mask) by index, in sorted order.
    A mask is a `torchvision.tv_tensors.Mask`, uint8 [H, W], so that the transforms of torchvision.transforms.v2 change
    image and mask together.

    The mask of images/a/b.jpg is masks/a/b.png: grayscale, or with a palette, and its pixels are class numbers, or
    `ignore_index` for those that do not count. `classes` are the names of the classes, from number 0 on. `values` are
    the pixel values of the classes, if they are not their numbers: [0, 255] for masks in black and white. The other
    arguments are those of `ImageFiles`. Files and folders are ignored as by `ImageFolder`.

    Raises `FileNotFoundError` if a folder or a mask does not exist, and `ValueError` if there are no images, or if two
    have the same mask.
    """

    def __init__(self, *, root: str, classes: Sequence[str], images: str = "images", masks: str = "masks",
                 channels: Literal[1, 3] = 3, ignore_index: int = 255, depth: Literal["auto", 8, 16] = "auto",
                 value_range: Sequence[float] | None = None, frame: int | None = None,
                 values: Sequence[int] | None = None) -> None:
        if isinstance(classes, str) or not 0 < len(classes) <= 256:
            raise ValueError(f"classes must be a list of 1 to 256 names, not {classes!r}")
        numbers = [*range(len(classes))] if values is None else [*values]
        if len({*numbers} & {*range(256)}) != len(classes) or len(numbers) != len(classes):
            raise ValueError(f"values must be one number from 0 to 255 for each of {len(classes)} classes, not "
                             f"{values}")
        folder, self.masks = Path(root) / images, Path(root) / masks
        self.ignore_index = ignore_index
        self.classes = list(classes)
        for one in (folder, self.masks):
            if not one.is_dir():
                raise FileNotFoundError(f"the folder {one} does not exist")
        self.scan = Scan()
        files = sorted((path.removeprefix("/"), size, time) for path, size, time in self.scan.images(folder, ""))
        if not files:
            raise ValueError(f"the folder {folder} has no images ({', '.join(suffixes())})")
        images_of: dict[Path, str] = {}
        for name, *_ in files:
            mask = self._mask_file(name)
            if (other := images_of.setdefault(mask, name)) != name:
                raise ValueError(f"the images {images}/{other} and {images}/{name} have the same mask {mask}; remove "
                                 "or rename one")
            if not mask.is_file():
                raise FileNotFoundError(f"the image {images}/{name} has no mask: there is no {mask}")
        self._stamps = np.array([stamps for _, *stamps in files], dtype=np.int64)
        super().__init__(root=str(folder), paths=(path for path, *_ in files), channels=channels, short_side=None,
                         depth=depth, value_range=value_range, frame=frame)
        self._known = np.zeros(256, dtype=np.bool_)
        self._known[numbers] = True
        if 0 <= ignore_index < 256:
            self._known[ignore_index] = True
        self._numbers = np.arange(256, dtype=np.uint8)
        self._numbers[numbers] = range(len(numbers))

    @property
    def stamps(self) -> Integers:
        return self._stamps

    def __getitem__(self, index: int) -> tuple[Image.Image | Tensor, Mask]:
        """Raises `ValueError`, which names the file, if image or mask cannot be used."""
        pixels, mask = self.pixels(index), self.target(index)
        if mask.shape != pixels.shape[:2]:
            raise ValueError(f"the mask {self._mask_file(self.paths[index])} has {mask.shape[1]}x{mask.shape[0]} "
                             f"pixels, its image {pixels.shape[1]}x{pixels.shape[0]}")
        return as_image(pixels), mask

    def target(self, index: int) -> Mask:
        file = self._mask_file(self.paths[index])
        with open_regular(str(file)) as stream, Image.open(stream) as opened:
            if opened.mode not in ("1", "L", "P"):
                raise ValueError(f"the mask {file} is of the mode {opened.mode}; class numbers need a grayscale image "
                                 "or one with a palette")
            mask = np.array(opened, dtype=np.uint8)
        if unknown := np.flatnonzero((np.bincount(mask.ravel(), minlength=256) > 0) & ~self._known).tolist():
            raise ValueError(f"the mask {file} has the class {unknown[0]}; there are {len(self.classes)} classes from "
                             f"0 on, and {self.ignore_index} is ignored. If the pixels are no class numbers, name "
                             "those of the classes: values: [0, 255]")
        return Mask(self._numbers[mask])

    def _mask_file(self, name: str) -> Path:
        return (self.masks / name).with_suffix(".png")

    def fingerprint(self) -> dict[str, str]:
        """Digests of the paths and sizes of images and masks, and of their modification times."""
        files, times = blake2b(digest_size=8), blake2b(digest_size=8)
        for name, (size, time) in zip(self.paths, self.stamps.tolist(), strict=True):
            stat = self._mask_file(name).stat()
            for one_size, one_time in ((size, time), (stat.st_size, stat.st_mtime_ns)):
                files.update(f"{name}\0{one_size}\0".encode("utf-8", "surrogateescape"))
                times.update(one_time.to_bytes(16, "little"))
        return {"files": files.hexdigest(), "times": times.hexdigest()}

    def notes(self) -> list[str]:
        return [*super().notes(), *([f"left out {self.scan}"] if self.scan.left_out else [])]
