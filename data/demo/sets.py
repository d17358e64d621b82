"""Small synthetic datasets in the file formats of well-known ones, to try the shipped configs without downloads.

    cifar10          CIFAR-10's binary batches, with ten simple colored figures for its ten classes
    fashion_mnist    Fashion-MNIST's IDX files, with the same figures in grayscale
    hymenoptera      train/ and val/ with ants/ and bees/, drawn from above
    shapes           train/ and val/ with images/ and masks/: discs, squares and triangles
    news             train.csv and test.csv: id, content, and a 0 or 1 for each of four topics

Results on them show that a model learns, but say nothing about the real datasets. The files are the same each time.
"""

from __future__ import annotations

import csv
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from drumbeat.data.cache import Pixels
from drumbeat.data.demo.shapes import write_shapes
from drumbeat.data.demo.xray import DemoSet, remove_stale
from drumbeat.data.order import key

Random = np.random.Generator
CLASSES = 10
TOPICS = ("Business", "SciTech", "Sports", "World")


@dataclass(frozen=True)
class Kind:
    """One kind of dataset."""

    things: str
    samples: int
    files: int
    make: Callable[[Path], Iterator[None]]
    """Writes the files to an empty folder; yields after each sample."""


def write_set(folder: Path, *, kind: str, progress: Callable[[int, int], None] | None = None) -> DemoSet:
    """Writes the dataset, unless it exists already. The complete folder is renamed into place.

    `progress` is called after each sample with the number of samples written and their total number. Raises
    FileExistsError if `folder` has any other content.
    """
    folder = Path(folder).resolve()
    chosen = SETS[kind]
    readme = (f"These {chosen.things} are synthetic: made by a program for testing software.\n"
              f"{chosen.samples:,} in {chosen.files} files, by `drumbeat demo-data {kind} DIR`.\n")
    if _is_there(folder, readme, chosen.files):
        return DemoSet(folder=folder, images=chosen.samples, written=False)
    remove_stale(folder)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        unfinished.mkdir(parents=True)
        for done, _ in enumerate(chosen.make(unfinished), 1):
            if progress is not None:
                progress(done, chosen.samples)
        (unfinished / "README.txt").write_text(readme, "utf-8")
        try:
            unfinished.rename(folder)
        except OSError:
            if not _is_there(folder, readme, chosen.files):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return DemoSet(folder=folder, images=chosen.samples, written=True)


def _is_there(folder: Path, readme: str, files: int) -> bool:
    """Whether the folder holds this very set; refuses one that holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    note = folder / "README.txt"
    there = sum(path.is_file() for path in folder.rglob("*") if not any(
        part.startswith(".") for part in path.relative_to(folder).parts)) - 1
    if not note.is_file() or note.read_text("utf-8", "replace") != readme:
        found = "is not empty, and holds something else than this set"
    elif there < files:
        found = f"holds this set, but {files - there} of its {files} files are missing"
    else:
        return True
    raise FileExistsError(f"{folder} {found}\n  Nothing was changed. Name another folder, or remove this one first.")


# Ten figures.


def draw_figure(random: Random, number: int, side: int) -> Image.Image:
    """Figure `number` of ten, white on black, [side, side]: of random size and place, a little turned."""
    canvas = Image.new("L", (4 * side, 4 * side))
    draw = ImageDraw.Draw(canvas)
    r = side * random.uniform(1.0, 1.5)
    x, y = 2 * side + random.uniform(-0.4, 0.4, 2) * side
    box = [x - r, y - r, x + r, y + r]
    thin = r * random.uniform(0.25, 0.4)
    bars = {"flat": [x - r, y - thin, x + r, y + thin], "tall": [x - thin, y - r, x + thin, y + r]}
    if number in (0, 4):
        draw.ellipse(box, fill=255)
    elif number in (1, 6):
        draw.rectangle(box, fill=255)
    elif number in (2, 7):
        draw.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)] if number == 2 else
                     [(x, y - r), (x + r, y), (x, y + r), (x - r, y)], fill=255)
    for name, numbers in (("flat", (3, 5, 8)), ("tall", (3, 9, 8))):
        if number in numbers:
            draw.rectangle(bars[name], fill=255)
    if number in (4, 6):  # a ring, a frame
        draw.ellipse([x - r / 2, y - r / 2, x + r / 2, y + r / 2], fill=0)
    if number == 8:  # a cross with an eye
        draw.ellipse([x - 2 * thin, y - 2 * thin, x + 2 * thin, y + 2 * thin], fill=255)
    turned = canvas.rotate(random.uniform(-12, 12), Image.Resampling.BILINEAR)
    return turned.resize((side, side), Image.Resampling.BOX)


def _in_colour(random: Random, number: int) -> Pixels:
    """A figure on a ground, uint8 [3, 32, 32]: two colours at random, some noise."""
    mask = np.asarray(draw_figure(random, number, 32), np.float32)[None] / 255
    ground, colour = random.uniform(0, 255, (2, 3, 1, 1))
    colour = ground + np.where(colour > ground, 70, -70) + 0.5 * (colour - ground)
    pixels: NDArray[np.float64] = ground * (1 - mask) + colour * mask + random.normal(0, 12, (3, 32, 32))
    return pixels.clip(0, 255).astype(np.uint8)


def _cifar10(folder: Path, batches: tuple[int, ...] = (400, 400, 400, 400, 400, 500)) -> Iterator[None]:
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    random = _random("cifar10")
    for name, count in zip(names, batches, strict=True):
        with open(folder / name, "wb") as file:
            for number in random.integers(CLASSES, size=count).tolist():
                file.write(bytes([number]) + _in_colour(random, number).tobytes())
                yield


def _fashion_mnist(folder: Path, counts: tuple[int, int] = (3000, 500)) -> Iterator[None]:
    random = _random("fashion_mnist")
    for part, count in zip(("train", "t10k"), counts, strict=True):
        labels = random.integers(CLASSES, size=count).astype(np.uint8)
        with open(folder / f"{part}-images-idx3-ubyte", "wb") as file:
            file.write(bytes([0, 0, 8, 3]) + np.array([count, 28, 28], ">u4").tobytes())
            for number in labels.tolist():
                noisy = np.asarray(draw_figure(random, number, 28), np.float32) + random.normal(0, 25, (28, 28))
                file.write(noisy.clip(0, 255).astype(np.uint8).tobytes())
                yield
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            bytes([0, 0, 8, 1]) + np.array([count], ">u4").tobytes() + labels.tobytes())


# Insects.


def _hymenoptera(folder: Path, counts: tuple[int, int] = (80, 40)) -> Iterator[None]:
    random = _random("hymenoptera")
    for split, count in zip(("train", "val"), counts, strict=True):
        for number in range(count):
            insect = ("ants", "bees")[number % 2]
            (folder / split / insect).mkdir(parents=True, exist_ok=True)
            draw_insect(random, bee=insect == "bees").save(folder / split / insect / f"{number:03d}.jpg", quality=90)
            yield


def draw_insect(random: Random, *, bee: bool) -> Image.Image:
    """An ant (three dark lumps) or a bee (yellow and black stripes, wings) on something green, some 300x240 pixels."""
    width, height = (int(side) for side in random.uniform(0.85, 1.2, 2) * (300, 240))
    coarse = random.uniform((40, 90, 20), (120, 190, 90), (9, 12, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    body = Image.new("RGBA", (240, 240))
    draw = ImageDraw.Draw(body)
    dark = (*(int(v) for v in random.uniform(15, 60, 3)), 255)
    for side in (-1, 1):
        for end in (-50, 0, 50):
            draw.line([120, 120 + end / 3, 120 + side * 55, 120 + end, 120 + side * 70, 135 + end], dark, 4)
    if bee:
        for side in (-1, 1):
            draw.ellipse([120 + side * 45 - 40, 70, 120 + side * 45 + 40, 110], (225, 230, 240, 170))
        draw.ellipse([85, 60, 155, 190], (230, 180, 30, 255))
        for top in range(85, 180, 26):
            draw.rectangle([92, top, 148, top + 11], (25, 20, 15, 255))
        draw.ellipse([98, 40, 142, 78], dark)
    else:
        for top, bottom, half in ((45, 80, 16), (82, 122, 13), (120, 195, 24)):
            draw.ellipse([120 - half, top, 120 + half, bottom], dark)
    size = int(random.uniform(0.55, 0.95) * min(width, height))
    turned = body.rotate(random.uniform(0, 360), Image.Resampling.BICUBIC).resize((size, size))
    place = [int(random.uniform(0, room)) for room in (width - size, height - size)]
    image.paste(turned, (place[0], place[1]), turned)
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.2)))


# News.


def _news(folder: Path, counts: tuple[int, int] = (2000, 400)) -> Iterator[None]:
    random = _random("news")
    for name, count in zip(("train", "test"), counts, strict=True):
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["id", "content", *TOPICS])
            for number in range(count):
                about = random.choice(4, size=1 + int(random.random() < 0.2), replace=False).tolist()
                table.writerow([number, _story(random, about), *(int(topic in about) for topic in range(4))])
                yield


def _story(random: Random, about: list[int]) -> str:
    """Some 10 to 60 words, one of six of which has to do with a topic, and now and then another one slips in."""
    words = []
    for _ in range(int(random.integers(10, 60))):
        chance = random.random()
        topic = int(random.choice(about)) if chance < 0.15 else int(random.integers(4)) if chance < 0.18 else None
        words.append(_word(random, "any", 400) if topic is None else _word(random, TOPICS[topic], 40))
    return " ".join(words).capitalize() + "."


def _word(random: Random, kind: str, of: int) -> str:
    """One of `of` made-up words, the first ones more often (Zipf's law)."""
    return _spelled(kind, int(of ** random.random()))


@cache
def _spelled(kind: str, rank: int) -> str:
    spell = np.random.default_rng(key(0, "word", kind, rank))
    return "".join("".join(spell.choice(list(letters)) for letters in ("bdfgklmnprstvz", "aeiou"))
                   for _ in range(2 + rank % 3))


def _random(kind: str) -> Random:
    return np.random.default_rng(key(0, "demo", kind))


SETS = {
    "cifar10": Kind("pictures", 2500, 6, _cifar10),
    "fashion_mnist": Kind("pictures", 3500, 4, _fashion_mnist),
    "hymenoptera": Kind("insects", 120, 120, _hymenoptera),
    "news": Kind("stories", 2400, 2, _news),
    "shapes": Kind("images with masks", 300, 600, lambda folder: write_shapes(folder, _random("shapes"))),
}
