"""Images: a folder as a dataset, reading a file as pixels, and normalizing a batch on the device."""

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
from drumbeat.data.regular import kind_of, open_regular

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What datasets and Pillow raise for files that are damaged, not images, or far too large."""


class ImageFolder:
    """A folder with one subfolder per class: (PIL image, class number) by index, with classes and files in sorted
    order.

    `channels` is 1 for grayscale and 3 for RGB; all files are converted (see `read_pixels`). `short_side` is the size
    at which images are read: null reads them in full size, and "auto" lets a run choose the size from its transforms
    (`data/fused.py`). Hidden folders and files are ignored. Raises `FileNotFoundError` if the folder does not exist,
    and `ValueError` if it has no classes, a class has no images, or an image is a pipe or a broken link.
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
            raise ValueError(f"the image folder {root} has no class folders (expected {root}/<class>/<image>)")
        paths: list[str] = []
        stamps: list[tuple[int, int]] = []
        labels: list[int] = []
        for number, name in enumerate(self.classes):
            found = sorted(_images(folder / name, name))
            if not found:
                raise ValueError(f"the class folder {folder / name} has no images ({', '.join(SUFFIXES)})")
            paths += [path for path, *_ in found]
            stamps += [(size, time) for _, size, time in found]
            labels += [number] * len(found)
        self.paths = PackedStrings(paths)
        """Relative to the root."""
        self.stamps = np.array(stamps, dtype=np.int64)
        """[n, 2]: size in bytes, and modification time in nanoseconds."""
        self.labels: Integers = np.array(labels, dtype=np.int64)
        self.cache: PixelCache | None = None
        """If set, pixels are read from it instead of the files."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Raises `ValueError`, which names the file, if it cannot be decoded."""
        return Image.fromarray(self.pixels(index)), int(self.labels[index])

    def pixels(self, index: int) -> Pixels:
        """The image without its label, possibly read-only. Raises `ValueError` like `decode`."""
        cached = self.cache.pixels(index) if self.cache is not None else None
        return self.decode(index) if cached is None else cached

    def decode(self, index: int) -> Pixels:
        """The image, read from its file. Raises `ValueError`, which names the file, if it cannot be decoded."""
        return read_pixels(self.file(index), channels=self.channels,
                           short_side=None if self.short_side == "auto" else self.short_side)

    def file(self, index: int) -> str:
        """The path of an image."""
        return f"{self.root}/{self.paths[index]}"

    def names(self) -> Sequence[str]:
        """The name of each sample: its path below the folder."""
        return self.paths

    def recipe(self) -> str:
        """How pixels are computed from a file. A cache depends on it, and on the files."""
        return f"pixels 1, channels {self.channels}, short side {self.short_side}"

    def fingerprint(self) -> dict[str, str]:
        """Digests of the paths and sizes of the files, and of their modification times."""
        sizes, times = np.ascontiguousarray(self.stamps.T)
        names = blake2b("\0".join(self.paths).encode("utf-8", "surrogateescape"), digest_size=8)
        names.update(sizes.tobytes())
        return {"files": names.hexdigest(), "times": blake2b(times.tobytes(), digest_size=8).hexdigest()}


def _visible(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _images(folder: Path | str, below: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, int, int]]:
    """Path, size and modification time of each image in a folder and its subfolders. `above` are the folders around
    it, without links."""
    above = (*above, os.path.realpath(folder))
    if above[-1] in above[:-1]:
        raise ValueError(f"the folder {folder} is a link to a folder that contains it; remove the link")
    for entry in _visible(folder):
        path = f"{below}/{entry.name}"
        if entry.is_dir():
            yield from _images(entry.path, path, above)
        elif entry.name.lower().endswith(SUFFIXES):
            if not entry.is_file():
                raise ValueError(f"{entry.path} is {kind_of(entry.path)}, and not a regular file; remove or rename it")
            stat = entry.stat()
            yield path, stat.st_size, stat.st_mtime_ns


def read_pixels(file: str, *, channels: int, short_side: int | None = None) -> Pixels:
    """A file as 8-bit pixels, grayscale [H, W] or RGB [H, W, 3], as an image viewer shows it.

    The image is rotated according to its EXIF data; of 16 bits, the upper 8 are kept; transparent areas become white.
    With `short_side`, an image whose shorter side is longer is shrunk to it. JPEGs are shrunk to 1/2, 1/4 or 1/8 while
    they are decoded (`Image.draft`), which saves most of the time. Images are never enlarged.

    Raises `ValueError`, which names the file, if it is damaged, not an image, or has more than 179 million pixels
    (Pillow's limit against decompression bombs).
    """
    try:
        # Not opened by its name: Pillow would map some files into memory, and corrupts a rotated TIFF.
        with open_regular(file) as stream, Image.open(stream) as opened:
            return pixels_of(opened, channels=channels, short_side=short_side)
    except Exception as error:  # of a damaged file Pillow's plugins raise almost anything, MemoryError included
        raise ValueError(f"cannot read the image {file}: {_reason(file, error)}") from error


SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"II*\x00": "TIFF", b"MM\x00*": "TIFF", b"RIFF": "WebP",
              b"GIF8": "GIF", b"BM": "BMP"}
"""The first bytes of image files."""


def _reason(file: str, error: Exception) -> str:
    """Why an image cannot be read: what the file seems to be, or else Pillow's message."""
    message = str(error).replace(f"<_io.BufferedReader name={file!r}>", "it").replace(repr(file), "it")
    try:
        with open_regular(file) as stream:
            start = stream.read(200)
    except (OSError, ValueError):
        return message or type(error).__name__
    kind = next((kind for bytes_, kind in SIGNATURES.items() if start.startswith(bytes_)), "")
    line = (start.decode("utf-8", "replace").splitlines() or [""])[0].strip()
    if not start:
        return "the file is empty"
    if "truncated" in message.lower() or (kind and isinstance(error, UnidentifiedImageError)):
        return f"the {kind} file is truncated" if kind else "the file is truncated"
    if isinstance(error, UnidentifiedImageError):
        return f"the file is text: {line[:60]}" if line and line.isprintable() and "\ufffd" not in line else (
            "the file is not an image in a format that Pillow knows")
    return message or type(error).__name__


def pixels_of(opened: Image.Image, *, channels: int, short_side: int | None = None) -> Pixels:
    """The same for an open image, or an image in memory. Raises Pillow's errors, and `ValueError` for values that
    cannot be converted to 8 bits."""
    mode = "L" if channels == 1 else "RGB"
    size = None if short_side is None else _scaled(opened.size, short_side)
    if size is not None:
        opened.draft(mode if opened.mode in ("L", "RGB", "YCbCr") else opened.mode, size)
    image = _as_seen(ImageOps.exif_transpose(opened)).convert(mode)
    return np.asarray(image if size is None else _shrunk(image, size))


def _scaled(size: tuple[int, int], short_side: int) -> tuple[int, int] | None:
    """The size of an image whose shorter side is shrunk to `short_side`; None if it is not longer."""
    width, height = size
    scale = short_side / min(width, height)
    return (max(1, round(width * scale)), max(1, round(height * scale))) if scale < 1 else None


def _shrunk(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image in that size, or with width and height swapped if the image was rotated by 90 degrees."""
    rotated = (image.width < image.height) != (size[0] < size[1])
    return image.resize(size[::-1] if rotated else size, Image.Resampling.BILINEAR)


def _as_seen(image: Image.Image) -> Image.Image:
    """An 8-bit image without transparency, from an image of any mode."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        values = np.asarray(image)
        if values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > 65535):
            raise ValueError("its values need more than 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("it has floating-point values, and their range is unknown")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image


class Normalize(nn.Module):
    """uint8 images [N, C, H, W] -> float32 [N, len(mean), H, W]: scaled to 0..1, minus `mean`, divided by `std`.

    A single channel is expanded to all channels, so a grayscale image is copied to the device with one byte per pixel.
    """

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"mean and std must have the same length, and std must be positive, not {mean} and {std}")
        scale = 1 / (255 * torch.tensor(std))
        self.register_buffer("scale", scale.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", (-torch.tensor(mean) / torch.tensor(std)).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        values = images.to(scale.dtype)
        if images.device.type == "cpu" and images.shape[1] == 1:  # the same bits in 2/3 of the time
            normalized = values.new_empty(len(images), scale.shape[1], *images.shape[2:])
            for c in range(scale.shape[1]):
                torch.add(shift[:, c], values[:, 0], alpha=float(scale[0, c]), out=normalized[:, c])
            return normalized
        return torch.addcmul(shift, values, scale)
