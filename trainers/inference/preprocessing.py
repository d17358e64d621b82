"""How a run reads and transforms its samples, so that inference does the same with new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.preconditions import innermost, with_hint
from drumbeat.configs.schema import Config
from drumbeat.data.images import ImageFiles
from drumbeat.data.loader import Transform
from drumbeat.data.splits import underlying
from drumbeat.data.text import Texts
from drumbeat.trainers.build import build_sets, build_task, image_set
from drumbeat.trainers.build_transforms import build_transforms, fused_transforms
from drumbeat.trainers.inference.inputs import ImageFormat, TextFormat
from drumbeat.trainers.inference.load import task_without_sets, training_set
from drumbeat.trainers.kept_vocabulary import kept_vocabulary
from drumbeat.trainers.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The task, how samples are read, and the transforms of each sample."""

    task: Task
    sample_format: TextFormat | ImageFormat
    transforms: Sequence[Transform]


def build_preprocessing(config: Config, path: Path) -> Preprocessing:
    """The preprocessing of the run's evaluation. If the training set is not on this machine, it follows from the config
    and the checkpoint in `path`. Raises `PreflightError` if they do not suffice."""
    try:
        sets = build_sets(config)
    except PreflightError as error:
        return _without_data(config, path, error)
    images, found = image_set(sets.train), underlying(sets.train, Texts)
    sample_format = TextFormat(found[0].vocabulary, found[0].length, found[0].limit) if found else (
        _image_format(sets.train if images is None else images))
    return Preprocessing(task=build_task(config, sets), sample_format=sample_format,
                         transforms=sets.evaluate_transforms)


def _image_format(samples: Any) -> ImageFormat:
    """How a dataset reads images, by its attributes or by its first sample."""
    if isinstance(samples, ImageFiles):
        return ImageFormat(samples.channels, None if samples.short_side == "auto" else samples.short_side,
                           depth=samples.depth, value_range=samples.value_range, frame=samples.frame)
    if getattr(samples, "channels", None) in (1, 3):
        return ImageFormat(samples.channels)
    value = samples[0][0]
    if isinstance(value, Image.Image):
        return ImageFormat(3 if value.mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr") else 1)
    if isinstance(value, Tensor) and value.dim() == 3 and value.dtype == torch.uint8 and value.shape[0] in (1, 3):
        return ImageFormat(value.shape[0], tensors=True)
    raise PreflightError(Fault(what="predict takes images or texts, and the run's samples are neither",
                               where="data.train", given=type(value).__name__,
                               remedy="To evaluate the run on its own sets: drumbeat evaluate"))


def _without_data(config: Config, path: Path, error: PreflightError) -> Preprocessing:
    """The same without the training set. Works for image files, and for texts whose vocabulary the run has kept."""
    node = innermost(config.data.train)
    vocabulary = kept_vocabulary(path) if node.get("_target_") == "drumbeat.data.Texts" else None
    if vocabulary is None and node.get("_target_") not in ("drumbeat.data.ImageFolder", "drumbeat.data.ImageTable"):
        raise PreflightError(*with_hint(error.faults, config.data.download_hint, fixed=True)) from None
    phases = [phase.transforms for phase in config.phases.values() if phase is not None and phase.transforms]
    (transforms, *_), auto = fused_transforms(config, [
        build_transforms(config.data.transforms.evaluate, "data.transforms.evaluate"),
        *(build_transforms(nodes, "data.transforms.train") for nodes in (config.data.transforms.train, *phases))])
    side = node.get("short_side", "auto")
    side = auto if side == "auto" else side
    data = training_set(path)
    given, found = node.get("depth", "auto"), data.get("facts", {}).get("depth")
    between, frame = node.get("value_range"), node.get("frame")
    task = task_without_sets(config, path)
    if vocabulary is not None:
        length = node.get("length")
        texts = TextFormat(vocabulary, length, node.get("max_length") if length is None else length)
        return Preprocessing(task=task, sample_format=texts, transforms=transforms)
    image_format = ImageFormat(int(node.get("channels", 3)), None if side == "auto" else side,
                               depth=found if given == "auto" else int(given),
                               value_range=(float(between[0]), float(between[1])) if between else None,
                               frame=frame if isinstance(frame, int) else None)
    return Preprocessing(task=task, sample_format=image_format, transforms=transforms)
