"""How a run reads its samples, for those who hand it samples of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.preconditions import innermost, with_way_out
from drumbeat.configs.schema import Config
from drumbeat.data.images import ImageFolder
from drumbeat.data.loader import Transform
from drumbeat.data.text import Texts
from drumbeat.trainers.build import as_computed, build_sets, build_task
from drumbeat.trainers.inference.load import remembered
from drumbeat.trainers.target import instantiate
from drumbeat.trainers.tasks import Task


@dataclass(frozen=True)
class AsImages:
    """Images as `drumbeat.data.images.read_pixels` reads them."""

    channels: int
    short_side: int | None = None
    tensors: bool = False
    """Whether the run's set gives tensors, uint8 [C, H, W], and not PIL images."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the outputs mean, how samples are read, and what is done to each."""

    task: Task
    like: Texts | AsImages
    transforms: Sequence[Transform]


def how_it_reads(config: Config, path: Path) -> Reading:
    """How the training set is read; where that is not there, what the config and the checkpoint in `path` tell of it.
    Raises `PreflightError` where they do not."""
    try:
        sets = build_sets(config)
    except PreflightError as error:
        return _without_data(config, path, error)
    samples: Any = sets.train
    while not isinstance(samples, Texts | ImageFolder) and hasattr(samples, "of"):
        samples = samples.of
    return Reading(task=build_task(config, sets), like=samples if isinstance(samples, Texts) else _as_images(samples),
                   transforms=sets.evaluate_transforms)


def _as_images(samples: Any) -> AsImages:
    """How a set's images are read: as it says, or as its first sample looks."""
    if isinstance(samples, ImageFolder):
        return AsImages(samples.channels, None if samples.short_side == "auto" else samples.short_side)
    if getattr(samples, "channels", None) in (1, 3):
        return AsImages(samples.channels)
    value = samples[0][0]
    if isinstance(value, Image.Image):
        return AsImages(3 if value.mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr") else 1)
    if isinstance(value, Tensor) and value.dim() == 3 and value.dtype == torch.uint8 and value.shape[0] in (1, 3):
        return AsImages(value.shape[0], tensors=True)
    raise PreflightError(Fault(what="predicting takes images and texts, and the run's samples are neither",
                               where="data.train", given=type(value).__name__,
                               remedy="drumbeat evaluate judges the run on its own sets."))


def _without_data(config: Config, path: Path, error: PreflightError) -> Reading:
    """The same for image files. A text needs the vocabulary, and that lies beside the training texts."""
    node = innermost(config.data.train)
    if node.get("_target_") not in ("drumbeat.data.ImageFolder", "drumbeat.data.ImageRegression"):
        raise PreflightError(*with_way_out(error.faults, config.data.download_hint, fixed=True)) from None
    both = config.data.transforms
    _, transforms, auto = as_computed(config, instantiate(both.train, "data.transforms.train"),
                                      instantiate(both.evaluate, "data.transforms.evaluate"))
    side = node.get("short_side", "auto") if node["_target_"] == "drumbeat.data.ImageFolder" else None
    side = auto if side == "auto" else side
    told = {"classes": remembered(path).get("classes"), "values": remembered(path).get("value_names")}
    task = instantiate({**{name: names for name, names in told.items() if names}, **config.task}, "task")
    return Reading(task=task, like=AsImages(int(node.get("channels", 3)), None if side == "auto" else side),
                   transforms=transforms)
