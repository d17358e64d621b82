"""Folders of drawn images, and sets that the doctor examines, for its tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import Resize

from drumbeat.data.images import ImageFolder
from drumbeat.trainers.build import Sets
from drumbeat.trainers.doctor.findings import Finding
from drumbeat.trainers.doctor.sample_checks import check_samples
from drumbeat.trainers.doctor.subject import Subject


def photo(seed: int, size: tuple[int, int] = (64, 48), mode: str = "RGB") -> Image.Image:
    """A drawn image: smooth patches of color, and noise. Another seed gives another image."""
    random = np.random.default_rng(seed)
    patches = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = random.integers(-10, 10, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(patches, dtype=np.int64) + noise, 0, 255).astype(np.uint8)).convert(mode)


def write(folder: Path, images: dict[str, Image.Image], **options: Any) -> None:
    """Writes images by their path below the folder."""
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, **options)


def healthy(folder: Path, first: int, count: int = 6) -> None:
    """Writes different images of cats and dogs."""
    write(folder, {f"{label}/{number}.png": photo(first + 1000 * place + number)
                   for place, label in enumerate(("cat", "dog")) for number in range(count)})


def subject(name: str, samples: Any, transforms: Sequence[Any] = (Resize([32, 32]),), *, everything: bool = True
            ) -> Subject:
    """A set with all its samples read."""
    sets = Sets(train=samples, validation=None, test=None, train_transforms=[], evaluate_transforms=list(transforms))
    return Subject(name, samples, list(check_samples(sets, samples, name, everything=everything)))


def folder_subject(name: str, folder: Path, channels: int = 3) -> Subject:
    return subject(name, ImageFolder(root=str(folder), channels=channels))  # type: ignore[arg-type]


def kinds(findings: Any) -> dict[str, Finding]:
    """The findings by kind."""
    return {one.kind: one for one in findings}
