"""Synthetic images with masks: discs, squares and triangles on grounds with a texture, to try segmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from drumbeat.data.cache import Pixels

CLASSES = ("background", "disc", "square", "triangle")
SIDE = 96
"""Pixels of an image in each direction."""
FINE = 4
"""Each pixel is the mean of 4 x 4; one that is not of one class, at the edge of a shape, does not count in the mask."""
IGNORED = 255
PALETTE = (0, 0, 0, 230, 159, 0, 86, 180, 233, 0, 158, 115)


def write_shapes(folder: Path, random: np.random.Generator, counts: tuple[int, int] = (240, 60)) -> Iterator[None]:
    """Writes train/ and val/, each with images/ and masks/. Yields after each image."""
    for split, count in zip(("train", "val"), counts, strict=True):
        for name in ("images", "masks"):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels, mask = draw_shapes(random)
            Image.fromarray(pixels).save(folder / split / "images" / f"{number:03d}.png")
            indexed = Image.fromarray(mask, "P")
            indexed.putpalette([*PALETTE, *[128] * (768 - len(PALETTE))])
            indexed.save(folder / split / "masks" / f"{number:03d}.png")
            yield


def draw_shapes(random: np.random.Generator) -> tuple[Pixels, Pixels]:
    """An image, uint8 [96, 96, 3], of one to four shapes that may cover each other, and its mask, uint8 [96, 96]."""
    size = (SIDE * FINE, SIDE * FINE)
    coarse = random.uniform(40, 215, 3) + random.uniform(-45, 45, (7, 7, 3))
    image = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    classes = Image.new("L", size)
    for _ in range(int(random.integers(1, 5))):
        number = int(random.integers(1, len(CLASSES)))
        colour = tuple(int(value) for value in random.uniform(0, 255, 3))
        state = random.bit_generator.state
        _shape(ImageDraw.Draw(image), random, number, colour)
        random.bit_generator.state = state  # the same shape in image and mask
        _shape(ImageDraw.Draw(classes), random, number, number)
    noisy = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64) + random.normal(
        0, 8, (SIDE, SIDE, 3))
    blocks = np.asarray(classes).reshape(SIDE, FINE, SIDE, FINE)
    least, most = blocks.min((1, 3)), blocks.max((1, 3))
    return noisy.clip(0, 255).astype(np.uint8), np.where(least == most, least, IGNORED).astype(np.uint8)


def _shape(draw: ImageDraw.ImageDraw, random: np.random.Generator, number: int, fill: int | tuple[int, ...]) -> None:
    """A disc (1), square (2) or triangle (3) of random size, place and direction."""
    radius = SIDE * FINE * random.uniform(0.1, 0.25)
    x, y = random.uniform(0.15, 0.85, 2) * SIDE * FINE
    turn = random.uniform(0, 2 * math.pi)
    if number == 1:
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)
        return
    corners = {2: 4, 3: 3}[number]
    draw.polygon([(x + 1.2 * radius * math.cos(turn + 2 * math.pi * corner / corners),
                   y + 1.2 * radius * math.sin(turn + 2 * math.pi * corner / corners)) for corner in range(corners)],
                 fill=fill)
