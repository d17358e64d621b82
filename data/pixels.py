"""Reads an image file as pixels, of 8 or 16 bits per value.

    read_pixels("photo.jpg", channels=3)                                # uint8 [H, W, 3]
    read_pixels("radiograph.png", channels=1, depth=16)                 # uint16 [H, W]: black is 0, white is 65535
    read_pixels("ct.dcm", channels=1, depth=16, value_range=(-1000, 400))     # these values become black and white
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from drumbeat.data import dicom
from drumbeat.data.cache import TOP, Pixels
from drumbeat.data.image_files import SIGNATURES
from drumbeat.data.regular import open_regular

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in a pixel's brightness, ITU-R BT.601, as in torchvision and Pillow."""

ORIENTATION = 0x0112
"""The EXIF and TIFF tag that says how an image must be turned."""
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
"""TIFF tags: bits of each value, and the meaning of 0, which is white if the tag is 0."""


class Values(NamedTuple):
    """An image with more than 8 bits per value, as its file has it."""

    values: NDArray[Any]
    """[H, W], [H, W, 3], or [H, W, 4] with opacity; integers or floats."""
    black: float
    white: float
    """The values that are shown as black and as white; NaN if the file does not tell."""


def read_pixels(file: str, *, channels: int, short_side: int | None = None, depth: int | None = 8,
                value_range: Sequence[float] | None = None, frame: int | None = None) -> Pixels:
    """A file as pixels, grayscale [H, W] or RGB [H, W, 3], as an image viewer shows it.

    The image is rotated according to its EXIF data, and transparent areas become white. With `short_side`, an image
    whose shorter side is longer is shrunk to it. JPEGs are shrunk to 1/2, 1/4 or 1/8 while they are decoded
    (`Image.draft`), which saves most of the time. Images are never enlarged.

    `depth` is 8 for uint8 (of 16 bits, the upper 8 are kept), 16 for uint16 (files of 8 bits are multiplied by 257,
    so that white is white), or None for uint8 with an error for a file that has more bits. `value_range` are the two
    values that become black and white in files of more than 8 bits; without it, the whole range of the file's type, or
    the window of a DICOM file. `frame` is the number of the image, from 0, in files that hold several.

    Raises `ValueError`, which names the file, if it is damaged, not an image, has several frames and `frame` is None,
    has values whose range must be given, or has more than 179 million pixels (Pillow's limit against decompression
    bombs).
    """
    try:
        # Not opened by its name: Pillow would map some files into memory, and corrupts a rotated TIFF.
        with open_regular(file) as stream:
            if dicom.is_dicom(file, stream):
                return _of_dicom(stream, channels, short_side, depth, value_range, frame)
            with Image.open(stream) as opened:
                _choose(opened, frame)
                return pixels_of(opened, channels=channels, short_side=short_side, depth=depth, value_range=value_range)
    except Exception as error:  # of a damaged file Pillow's plugins raise almost anything, MemoryError included
        raise ValueError(f"cannot read the image {file}: {_reason(file, error)}") from error


class Header(NamedTuple):
    """What the beginning of an image file tells."""

    size: tuple[int, int]
    """Width and height."""
    mode: str
    depth: int
    """8, or 16 for more bits per value."""


def read_header(file: str) -> Header:
    """The header of an image file. Raises `ValueError`, which names the file."""
    try:
        with open_regular(file) as stream:
            if dicom.is_dicom(file, stream):
                return Header(*dicom.header(stream))
            with Image.open(stream) as opened:
                return Header(opened.size, opened.mode, 16 if _is_deep(opened) else 8)
    except Exception as error:
        raise ValueError(f"cannot read the image {file}: {_reason(file, error)}") from error


def as_image(pixels: Pixels) -> Image.Image | Tensor:
    """Pixels as transforms take them: a PIL image if they have 8 bits, and float32 [C, H, W] in 0..1 if they have 16,
    which few of Pillow's functions can compute with."""
    if pixels.dtype == np.uint8:
        return Image.fromarray(pixels)
    values = torch.from_numpy(pixels.astype(np.float32) / TOP[16])
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


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


def pixels_of(opened: Image.Image, *, channels: int, short_side: int | None = None, depth: int | None = 8,
              value_range: Sequence[float] | None = None) -> Pixels:
    """The same for an open image, or an image in memory. Raises Pillow's errors, and `ValueError` for values that
    cannot be converted."""
    if _is_deep(opened):
        _require_depth(depth, "16" if opened.mode != "F" else "32")
        return _converted(_values(opened), channels, short_side, depth or 8, value_range)
    mode = "L" if channels == 1 else "RGB"
    size = None if short_side is None else _scaled(opened.size, short_side)
    if size is not None:
        opened.draft(mode if opened.mode in ("L", "RGB", "YCbCr") else opened.mode, size)
    image = _as_seen(ImageOps.exif_transpose(opened)).convert(mode)
    pixels = np.asarray(image if size is None else _shrunk(image, size))
    return pixels if depth != 16 else pixels.astype(np.uint16) * np.uint16(TOP[16] // TOP[8])


def pixels_of_array(values: NDArray[Any], *, channels: int, short_side: int | None = None, depth: int | None = 8,
                    value_range: Sequence[float] | None = None) -> Pixels:
    """The same for an array [H, W] or [H, W, 1, 3 or 4]. Raises `ValueError`."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    full = (0, TOP[8 * values.dtype.itemsize]) if values.dtype in (np.uint8, np.uint16) else (np.nan, np.nan)
    if values.dtype != np.uint8:
        _require_depth(depth, str(8 * values.dtype.itemsize))
    return _converted(Values(values, *full), channels, short_side, depth or 8, value_range)


def _require_depth(depth: int | None, bits: str) -> None:
    if depth is None:
        raise ValueError(f"it has {bits} bits per value, and the files that were looked at before have 8; give the set "
                         "depth: 16 to keep all bits of all files, or depth: 8 to keep the upper 8")


def _choose(opened: Image.Image, frame: int | None) -> None:
    """Goes to a frame. Photographs of some cameras (MPO) have previews behind the image, which are no frames."""
    count = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
    dicom.check_frame(frame, count)
    if frame:
        opened.seek(frame)


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
    """An 8-bit image without transparency."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image


# More than 8 bits per value.

def _is_deep(opened: Image.Image) -> bool:
    """Whether a file has more than 8 bits per value. Pillow opens color files of 16 bits as 8 bits, and only the names
    of their raw data tell."""
    if opened.mode == "F" or opened.mode.startswith("I"):
        return True
    forms = [tile[3][0] if isinstance(tile[3], tuple) else tile[3] for tile in getattr(opened, "tile", ())]
    return opened.format in ("PNG", "TIFF") and any(";16" in str(form) for form in forms)


def _values(opened: Image.Image) -> Values:
    """The values of an open image of more than 8 bits, upright."""
    if opened.mode not in ("F", "I") and not opened.mode.startswith("I;16"):
        values = _upright(_color(opened), opened.getexif().get(ORIENTATION, 1))
        return Values(values, 0, TOP[16])
    tags: Any = getattr(opened, "tag_v2", {})
    bits, is_white_zero = (tags.get(BITS_PER_SAMPLE) or (16,))[0], tags.get(PHOTOMETRIC) == 0
    values = np.asarray(ImageOps.exif_transpose(opened))
    values = values.astype(values.dtype.newbyteorder("="))
    if opened.mode == "F" or values.min() < 0 or values.max() > TOP[16]:
        return Values(values, np.nan, np.nan)
    white = 2**min(bits, 16) - 1
    return Values(values, white, 0) if is_white_zero else Values(values, 0, white)


def _color(opened: Any) -> NDArray[np.uint16]:
    """A color file, or a gray one with opacity, of 16 bits, which OpenCV decodes and Pillow does not: [H, W, 3 or 4].
    """
    import cv2  # only such files need it

    opened.fp.seek(0)
    encoded = np.frombuffer(opened.fp.read(), np.uint8)
    read, frames = cv2.imdecodemulti(encoded, cv2.IMREAD_UNCHANGED, range=(opened.tell(), opened.tell() + 1))
    if not read or frames[0].dtype != np.uint16 or frames[0].ndim != 3:
        raise ValueError("it has 16 bits per value in a form that OpenCV cannot read; save it as a plain PNG or TIFF")
    values = np.asarray(frames[0], np.uint16)
    return values[..., [2, 1, 0, *((3,) if values.shape[2] == 4 else ())]]


def _upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Rows and columns as the tag says (EXIF 2.3, table 6)."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    return values[::-1 if orientation in (3, 4, 7, 8) else 1, ::-1 if orientation in (2, 3, 6, 7) else 1]


def _of_dicom(stream: BinaryIO, channels: int, short_side: int | None, depth: int | None,
              value_range: Sequence[float] | None, frame: int | None) -> Pixels:
    stored = dicom.read(stream, frame, windowed=value_range is None)
    if stored.bits > 8:
        _require_depth(depth, str(stored.bits))
    return _converted(Values(*stored[1:]), channels, short_side, depth or 8, value_range if stored.bits > 8 else None)


def _converted(found: Values, channels: int, short_side: int | None, depth: int,
               value_range: Sequence[float] | None) -> Pixels:
    """Values as pixels of 8 or 16 bits: clipped to the range, and rounded to the nearest."""
    values, black, white = found
    if value_range is not None:
        low, high = value_range
        black, white = (high, low) if black > white else (low, high)
    if np.isnan(black):
        raise ValueError(f"its values go from {values.min():g} to {values.max():g}, and it does not tell which are "
                         "black and white; give the set value_range: [black, white]")
    pixels = _shades(values, black, white, TOP[depth])
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        opacity = pixels[..., 3:].astype(np.float64) / TOP[depth]
        pixels = np.rint(pixels[..., :3] * opacity + TOP[depth] * (1 - opacity)).astype(pixels.dtype)
    if channels == 1 and pixels.ndim == 3:
        pixels = np.rint(pixels @ LUMA).astype(pixels.dtype)
    elif channels == 3 and pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    size = None if short_side is None else _scaled((pixels.shape[1], pixels.shape[0]), short_side)
    return np.ascontiguousarray(pixels) if size is None else _resized(pixels, size)


def _shades(values: NDArray[Any], black: float, white: float, top: int) -> Pixels:
    """Values from black to white as 0 to `top`."""
    kind: Any = np.uint8 if top < 256 else np.uint16
    if values.dtype == kind and (black, white) == (0, top):
        return values
    if (top, black, white) == (TOP[8], 0, TOP[16]) and values.dtype.kind in "iu":
        return np.asarray(values >> 8, dtype=np.uint8)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are NaN or infinite")
    share: NDArray[np.float64] = (values.astype(np.float64) - black) / (white - black)
    return np.asarray(np.rint(share.clip(0, 1) * top), dtype=kind)


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Shrunk by Pillow's filter, in float32, for each channel."""
    layers = [pixels] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
    small = [np.rint(np.asarray(Image.fromarray(layer.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)))
             for layer in layers]
    whole = small[0] if pixels.ndim == 2 else np.stack(small, axis=2)
    shrunk: Pixels = np.clip(whole, 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
    return shrunk
