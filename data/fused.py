"""Fuses torchvision's v2 transforms: all geometry becomes one warp, and brightness and contrast one lookup table.

    fuse([RandomResizedCrop(300), RandomRotation(10), ColorJitter(0.4, 0.4), CenterCrop(256)])     # [Fused(...)]

Parameters are drawn in the order of the transforms and from the same generator (draws.py), so the fused transform has
the same effect as the list. The pixels are interpolated once instead of several times: on radiographs they differ by
about 1 of 256 levels on average (tests/data/test_fused.py states the bounds). The list is unchanged from the first
transform on that cannot be fused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from drumbeat.data import draws
from drumbeat.data.cache import Pixels
from drumbeat.data.pixels import LUMA

cv2.setNumThreads(1)  # the ranks and their workers use all cores; and threads do not survive a fork

SHRINK_FIRST = 2.0
"""If an output pixel covers more source pixels than this in one direction, a resize averages them; otherwise it
interpolates."""

LEVELS = {np.dtype(kind): np.arange(1 + np.iinfo(kind).max, dtype=np.float32) for kind in (np.uint8, np.uint16)}
"""All pixel values of each type, as float32, the type in which Pillow computes."""

BILINEAR = (InterpolationMode.BILINEAR, "bilinear", Image.Resampling.BILINEAR)
"""The values of `interpolation` that mean bilinear."""

Matrix = tuple[float, float, float, float, float, float]
"""Six numbers (a, b, c, d, e, f): x, y -> a x + b y + c, d x + e y + f, with pixel centers at half-integers."""

IDENTITY: Matrix = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class Canvas(NamedTuple):
    """An image between two transforms: its source and how to compute it. A tuple, because one is created for each
    transform of each image."""

    source: Pixels
    height: int
    width: int
    matrix: Matrix = IDENTITY
    """Maps a point on the canvas to the point in the source that is shown there."""
    table: NDArray[np.float32] | None = None
    """[256] or [65536]: the new value of each pixel value."""
    whole: bool = True
    """Whether the edges of the canvas are the edges of the source."""

    @property
    def is_source(self) -> bool:
        """Whether the canvas is equal to the source, except for the table."""
        return self.matrix == IDENTITY and (self.height, self.width) == self.source.shape[:2]

    @property
    def is_black_outside(self) -> bool:
        """Whether the area outside the canvas is outside the source, which is black, and stays black."""
        return self.whole and (self.table is None or self.table[0] == 0)

    @property
    def is_inside_source(self) -> bool:
        """Whether the whole canvas shows the source, except for rounding errors."""
        a, b, c, d, e, f = self.matrix
        tall, wide = self.source.shape[:2]
        return (_reaches_from(a * self.width, b * self.height, c) > -1e-6
                and _reaches_from(d * self.width, e * self.height, f) > -1e-6
                and _reaches_to(a * self.width, b * self.height, c) < wide + 1e-6
                and _reaches_to(d * self.width, e * self.height, f) < tall + 1e-6)

    def seen_through(self, inner: Matrix, height: int, width: int, *, whole: bool = True) -> Canvas:
        """A canvas whose points are mapped to points of this one by `inner`. `whole`: its edges are those of this one.
        """
        a, b, c, d, e, f = self.matrix
        g, h, i, j, k, m = inner
        matrix = (a * g + b * j, a * h + b * k, a * i + b * m + c, d * g + e * j, d * h + e * k, d * i + e * m + f)
        return Canvas(self.source, height, width, matrix, self.table, self.whole and whole)

    def cropped(self, top: int, left: int, height: int, width: int) -> Canvas:
        """A part of the canvas; the area outside it is black."""
        inside = top >= 0 and left >= 0 and top + height <= self.height and left + width <= self.width
        if self.is_source and inside:
            return self._replace(source=self.source[top:top + height, left:left + width], height=height, width=width)
        if not (inside or self.is_black_outside):
            return self.repainted().cropped(top, left, height, width)
        return self.seen_through((1.0, 0.0, left, 0.0, 1.0, top), height, width, whole=False)

    def resized(self, height: int, width: int) -> Canvas:
        """The canvas resized to a size."""
        a, b, _, d, e, _ = self.matrix
        if max(math.hypot(a, d) * self.width / width, math.hypot(b, e) * self.height / height) <= SHRINK_FIRST:
            return self.seen_through((self.width / width, 0.0, 0.0, 0.0, self.height / height, 0.0), height, width)
        if not self.is_source:
            return self.repainted().resized(height, width)
        low, narrow = min(height, self.height), min(width, self.width)  # a side that becomes longer is interpolated
        small = cast(Pixels, cv2.resize(self.source, (narrow, low), interpolation=cv2.INTER_AREA))
        return self._replace(source=small, height=low, width=narrow).resized(height, width)

    def rotated(self, degrees: float) -> Canvas:
        """Rotated counter-clockwise about the center; the area from outside is black."""
        if not self.is_black_outside:
            return self.repainted().rotated(degrees)
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        x, y = self.width / 2, self.height / 2
        turn = (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)
        return self.seen_through(turn, self.height, self.width, whole=False)

    def flipped(self, *, sideways: bool) -> Canvas:
        inner = (-1.0, 0.0, float(self.width), 0.0, 1.0, 0.0) if sideways else (
            1.0, 0.0, 0.0, 0.0, -1.0, float(self.height))
        return self.seen_through(inner, self.height, self.width)

    def mapped(self, table: NDArray[np.float32]) -> Canvas:
        """Each pixel value replaced by the table's, clipped to the values of the type and rounded down."""
        new = table if self.table is None else table[self.table.astype(np.intp)]
        new = np.minimum(np.maximum(new, 0), self.levels[-1])
        return Canvas(self.source, self.height, self.width, self.matrix, np.floor(new, out=new), self.whole)

    @property
    def levels(self) -> NDArray[np.float32]:
        """All values that pixels can have."""
        return LEVELS[self.source.dtype]

    def brightness(self) -> float:
        """The mean over the canvas, computed from about every fourth pixel in each direction."""
        height, width = max(1, round(self.height / 4)), max(1, round(self.width / 4))
        across, down = self.width / width, self.height / height
        small = self.seen_through((across, 0.0, 0.0, 0.0, down, 0.0), height, width).painted()
        means = [total / (height * width) for total in cv2.sumElems(small)[:3]]  # the sums are exact
        return float(means[0] if small.ndim == 2 else (np.array(means) * LUMA).sum())

    def repainted(self) -> Canvas:
        """The same image with the computed pixels as its source."""
        return Canvas(self.painted(), self.height, self.width)

    def painted(self) -> Pixels:
        """The pixels."""
        a, b, c, d, e, f = self.matrix
        if self.is_source:
            pixels = self.source
        elif (a, b, d, e) == (1.0, 0.0, 0.0, 1.0) and c == int(c) and f == int(f):
            pixels = _window(self.source, int(f), int(c), self.height, self.width)
        else:
            # A black border is only used if it is visible: otherwise an enlarged edge would fade into it.
            border = cv2.BORDER_REPLICATE if self.is_inside_source else cv2.BORDER_CONSTANT
            at_centers = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
            pixels = cast(Pixels, cv2.warpAffine(self.source, at_centers, (self.width, self.height),
                                                 flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border))
        if self.table is None:
            return pixels
        table = self.table.astype(pixels.dtype)
        return cast(Pixels, cv2.LUT(pixels, table) if pixels.dtype == np.uint8 else table[pixels])


def _reaches_from(across: float, down: float, shift: float) -> float:
    """The least coordinate in the source of a canvas's points; `_reaches_to`: the greatest."""
    return min(0.0, across) + min(0.0, down) + shift


def _reaches_to(across: float, down: float, shift: float) -> float:
    return max(0.0, across) + max(0.0, down) + shift


def _window(source: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """A part of the source; the area outside the source is black."""
    window = np.zeros((height, width, *source.shape[2:]), source.dtype)
    inside = source[max(top, 0):max(top + height, 0), max(left, 0):max(left + width, 0)]
    window[max(-top, 0):max(-top, 0) + inside.shape[0], max(-left, 0):max(-left, 0) + inside.shape[1]] = inside
    return window


class Fused:
    """Image -> image, like the list of transforms. `fuse` decides which transforms can be fused.

    8-bit PIL images, and pixels of 8 or 16 bits, are transformed in one operation. Other inputs, such as tensors, go
    through the transforms one by one.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = list(transforms)
        self.steps = [_STEPS[type(transform)] for transform in transforms]

    def __call__(self, image: Any) -> Any:
        if isinstance(image, Image.Image) and image.mode in ("L", "RGB"):
            return Image.fromarray(self.pixels(np.asarray(image)))
        for transform in self.transforms:
            image = transform(image)
        return image

    def pixels(self, pixels: Pixels) -> Pixels:
        """The same for arrays of uint8 or uint16: [H, W] grayscale or [H, W, 3] RGB."""
        canvas = Canvas(pixels, *pixels.shape[:2])
        for transform, step in zip(self.transforms, self.steps, strict=True):
            canvas = step(transform, canvas)
        return canvas.painted()

    def __repr__(self) -> str:
        return f"Fused({', '.join(type(transform).__name__ for transform in self.transforms)})"


def fuse(transforms: Sequence[Any]) -> list[Any]:
    """The list with the transforms at its start that can be fused replaced by one `Fused`."""
    count = next((number for number, transform in enumerate(transforms) if not _can_be_fused(transform)),
                 len(transforms))
    return [Fused(transforms[:count]), *transforms[count:]] if count else list(transforms)


def needed_side(transforms: Sequence[Any]) -> int | None:
    """The shorter side that an image must have so that the transforms never enlarge what they crop from it; None if
    they need the original size (a crop in pixels, or an unknown transform)."""
    for transform in transforms:
        if type(transform) is v2.RandomResizedCrop:
            return math.ceil(max(transform.size) / math.sqrt(transform.scale[0])) if transform.scale[0] > 0 else None
        if type(transform) is v2.Resize and transform.size is not None and transform.max_size is None:
            return int(max(transform.size))
        if type(transform) not in (v2.ColorJitter, v2.RandomHorizontalFlip, v2.RandomVerticalFlip, v2.RandomRotation):
            return None
    return None


def _can_be_fused(transform: Any) -> bool:
    kind = type(transform)
    if kind not in _STEPS:
        return False
    if kind is v2.RandomRotation:
        return bool(not transform.expand and transform.center is None and transform.fill == 0)
    if kind in (v2.RandomResizedCrop, v2.Resize):
        return transform.interpolation in BILINEAR and getattr(transform, "max_size", None) is None
    if kind is v2.RandomCrop:
        return bool(transform.fill == 0 and transform.padding_mode == "constant")
    if kind is v2.ColorJitter:
        return bool(transform.hue is None)
    return True


def _random_resized_crop(transform: Any, canvas: Canvas) -> Canvas:
    return canvas.cropped(*draws.resized_crop(transform, canvas.height, canvas.width)).resized(*transform.size)


def _resize(transform: Any, canvas: Canvas) -> Canvas:
    if len(transform.size) == 2:
        return canvas.resized(*transform.size)
    side, short = transform.size[0], min(canvas.height, canvas.width)
    return canvas.resized(*(side if length == short else int(side * length / short)
                            for length in (canvas.height, canvas.width)))


def _center_crop(transform: Any, canvas: Canvas) -> Canvas:
    height, width = transform.size
    top, left = (round((have - want) / 2) if have >= want else -((want - have) // 2)
                 for have, want in ((canvas.height, height), (canvas.width, width)))
    return canvas.cropped(top, left, height, width)


def _random_crop(transform: Any, canvas: Canvas) -> Canvas:
    drawn = transform.make_params([torch.empty(1).expand(1, canvas.height, canvas.width)])
    left, top, _, _ = drawn["padding"]
    return canvas.cropped(drawn["top"] - top, drawn["left"] - left, drawn["height"], drawn["width"])


def _rotation(transform: Any, canvas: Canvas) -> Canvas:
    return canvas.rotated(draws.uniform(*transform.degrees))


def _flip(transform: Any, canvas: Canvas) -> Canvas:
    if not draws.happens(transform.p):
        return canvas
    return canvas.flipped(sideways=type(transform) is v2.RandomHorizontalFlip)


def _color_jitter(transform: Any, canvas: Canvas) -> Canvas:
    drawn = draws.jitter(transform)
    for number in drawn.order:
        if number == 0 and (factor := drawn.brightness) is not None:
            canvas = canvas.mapped(canvas.levels * factor)
        elif number == 1 and (factor := drawn.contrast) is not None:
            middle = int(canvas.brightness() + 0.5)
            canvas = canvas.mapped(middle + factor * (canvas.levels - middle))
        elif number == 2 and (factor := drawn.saturation) is not None and canvas.source.ndim == 3:
            mix = factor * np.eye(3) + (1 - factor) * LUMA
            down = np.full((3, 1), -0.499)  # rounds down, as in `mapped`, although OpenCV rounds to nearest
            pixels = cast(Pixels, cv2.transform(canvas.painted(), np.hstack([mix, down])))
            canvas = Canvas(pixels, canvas.height, canvas.width)
    return canvas


_STEPS: dict[type, Callable[[Any, Canvas], Canvas]] = {
    v2.RandomResizedCrop: _random_resized_crop, v2.Resize: _resize, v2.CenterCrop: _center_crop,
    v2.RandomCrop: _random_crop, v2.RandomRotation: _rotation, v2.RandomHorizontalFlip: _flip,
    v2.RandomVerticalFlip: _flip, v2.ColorJitter: _color_jitter,
}
