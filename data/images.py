"""Images: folders of them as a dataset, how a file becomes pixels, and what is done to a batch on the device."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor, nn

from drumbeat.data.cache import PixelCache, Pixels
from drumbeat.data.order import Integers
from drumbeat.data.packed import PackedStrings

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that are damaged, no images, or far too large."""


class ImageFolder:
    """A folder with a folder for each class: (PIL image, class number) by index, classes and files in sorted order.

    `channels` is 1 for grayscale and 3 for RGB; every file is converted to it, as `read_pixels` says. `short_side` is
    the size at which images are read: "auto" leaves it to who knows the transforms (`data/fused.py`), and to
    the file where nobody says. Hidden folders and files are left out. Raises `FileNotFoundError` for a folder that is
    not there and `ValueError` for one that does not hold what it should.
    """

    def __init__(self, *, root: str, channels: Literal[1, 3] = 3,
                 short_side: int | Literal["auto"] | None = "auto") -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grayscale) or 3 (RGB), not {channels}")
        folder = Path(root)
        if not folder.is_dir():
            raise FileNotFoundError(f"the image folder {root} does not exist")
        self.root = str(folder)
        self.channels: int = channels
        self.short_side = short_side
        self.classes = sorted(entry.name for entry in _visible(folder) if entry.is_dir())
        if not self.classes:
            raise ValueError(f"the image folder {root} holds no class folders (expected {root}/<class>/<image>)")
        paths: list[str] = []
        stamps: list[tuple[int, int]] = []
        labels: list[int] = []
        for number, name in enumerate(self.classes):
            found = sorted(_images(folder / name, name))
            if not found:
                raise ValueError(f"the class folder {folder / name} holds no images ({', '.join(SUFFIXES)})")
            paths += [path for path, *_ in found]
            stamps += [(size, time) for _, size, time in found]
            labels += [number] * len(found)
        self.paths = PackedStrings(paths)
        """Relative to the root."""
        self.stamps = np.array(stamps, dtype=np.int64)
        """[n, 2]: bytes, and time of the last change in nanoseconds."""
        self.labels: Integers = np.array(labels, dtype=np.int64)
        self.cache: PixelCache | None = None
        """Where the pixels are read from, instead of the files."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Raises `ValueError` that names the file where it cannot be decoded."""
        return Image.fromarray(self.pixels(index)), int(self.labels[index])

    def pixels(self, index: int) -> Pixels:
        """The image alone, perhaps read only. Raises `ValueError` as `decode` does."""
        cached = self.cache.pixels(index) if self.cache is not None else None
        return self.decode(index) if cached is None else cached

    def decode(self, index: int) -> Pixels:
        """The image from its file. Raises `ValueError` that names the file where it cannot be decoded."""
        return read_pixels(self.file(index), channels=self.channels,
                           short_side=None if self.short_side == "auto" else self.short_side)

    def file(self, index: int) -> str:
        """The path of an image."""
        return f"{self.root}/{self.paths[index]}"

    def names(self) -> Sequence[str]:
        """What each sample is called, whatever else is in the folder: the path below it."""
        return self.paths

    def recipe(self) -> str:
        """How pixels are made from a file: what a cache of them depends on beside the files."""
        return f"pixels 1, channels {self.channels}, short side {self.short_side}"

    def fingerprint(self) -> dict[str, str]:
        """Digests of which files there are and how large, and of when they were last changed."""
        sizes, times = np.ascontiguousarray(self.stamps.T)
        names = blake2b("\0".join(self.paths).encode("utf-8", "surrogateescape"), digest_size=8)
        names.update(sizes.tobytes())
        return {"files": names.hexdigest(), "times": blake2b(times.tobytes(), digest_size=8).hexdigest()}


def _visible(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _images(folder: Path | str, below: str) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of each image in a folder and those in it."""
    for entry in _visible(folder):
        path = f"{below}/{entry.name}"
        if entry.is_dir():
            yield from _images(entry.path, path)
        elif entry.name.lower().endswith(SUFFIXES):
            stat = entry.stat()
            yield path, stat.st_size, stat.st_mtime_ns


def read_pixels(file: str, *, channels: int, short_side: int | None = None) -> Pixels:
    """A file as 8-bit pixels, gray [H, W] or RGB [H, W, 3], as a picture viewer shows it.

    It is turned as its EXIF data say; of 16 bits the upper 8 are kept; what is transparent becomes white. With
    `short_side`, an image whose shorter side is longer is shrunk to that; a JPEG to 1/2, 1/4 or 1/8 already while it is
    decoded (`Image.draft`), which saves most of the time. Nothing is enlarged.

    Raises `ValueError` that names the file if it is damaged, no image, or one of more than 179 million pixels, which
    are Pillow's bounds against decompression bombs.
    """
    try:
        # Not by its name: Pillow would map the memory of some files, and scrambles a TIFF that lies on its side.
        with open(file, "rb") as stream, Image.open(stream) as opened:
            return pixels_of(opened, channels=channels, short_side=short_side)
    except UNREADABLE as error:
        raise ValueError(f"cannot read the image {file}: {_reason(file, error)}") from error


BEGINNINGS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"II*\x00": "TIFF", b"MM\x00*": "TIFF", b"RIFF": "WebP",
              b"GIF8": "GIF", b"BM": "BMP"}
"""The first bytes of image files."""


def _reason(file: str, error: Exception) -> str:
    """Why an image cannot be read: what its file seems to be, or else what Pillow says."""
    said = str(error).replace(f"<_io.BufferedReader name={file!r}>", "it").replace(repr(file), "it")
    if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
        return said
    with open(file, "rb") as stream:
        begin = stream.read(200)
    kind = next((kind for bytes_, kind in BEGINNINGS.items() if begin.startswith(bytes_)), "")
    line = (begin.decode("utf-8", "replace").splitlines() or [""])[0].strip()
    if not begin:
        return "the file is empty"
    if "truncated" in said.lower() or (kind and isinstance(error, UnidentifiedImageError)):
        return f"the file is {kind} and cut off" if kind else "the file is cut off"
    if isinstance(error, UnidentifiedImageError):
        return f"the file is text: {line[:60]}" if line and line.isprintable() and "\ufffd" not in line else (
            "the file is no image of any kind that Pillow knows")
    return said or type(error).__name__


def pixels_of(opened: Image.Image, *, channels: int, short_side: int | None = None) -> Pixels:
    """The same for an image that is open, or that never was a file. Raises what Pillow raises, and `ValueError` for
    values that 8 bits cannot say."""
    mode = "L" if channels == 1 else "RGB"
    size = None if short_side is None else _scaled(opened.size, short_side)
    if size is not None:
        opened.draft(mode if opened.mode in ("L", "RGB", "YCbCr") else opened.mode, size)
    image = _as_seen(ImageOps.exif_transpose(opened)).convert(mode)
    return np.asarray(image if size is None else _shrunk(image, size))


def _scaled(size: tuple[int, int], short_side: int) -> tuple[int, int] | None:
    """The size of an image once its shorter side is `short_side`; None where it is no longer."""
    width, height = size
    scale = short_side / min(width, height)
    return (max(1, round(width * scale)), max(1, round(height * scale))) if scale < 1 else None


def _shrunk(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image of that size, or of that size turned on its side where the image was."""
    lies = (image.width < image.height) != (size[0] < size[1])
    return image.resize(size[::-1] if lies else size, Image.Resampling.BILINEAR)


def _as_seen(image: Image.Image) -> Image.Image:
    """An image of 8 bits and without transparency, from one of any mode that Pillow reads."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        values = np.asarray(image)
        if values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > 65535):
            raise ValueError("its values need more than 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("it holds floating-point numbers, and nothing says which of them is white")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image


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
        levels = images.to(scale.dtype)
        if images.device.type == "cpu" and images.shape[1] == 1:  # the same bits in 2/3 of the time
            normal = levels.new_empty(len(images), scale.shape[1], *images.shape[2:])
            for c in range(scale.shape[1]):
                torch.add(shift[:, c], levels[:, 0], alpha=float(scale[0, c]), out=normal[:, c])
            return normal
        return torch.addcmul(shift, levels, scale)
