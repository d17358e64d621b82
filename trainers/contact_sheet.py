"""Sheets to look at: samples as the model sees them in training, and those that it is wrong about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.layers import short
from drumbeat.configs.schema import Config
from drumbeat.data.loader import Batch, BatchFetcher, Samples, Transform
from drumbeat.trainers.build import Sets, build_forward, build_mixing, build_stream, build_task
from drumbeat.trainers.tasks import Results, Task
from drumbeat.trainers.tracking import contact_sheet
from drumbeat.trainers.world import World

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
"""A rank by itself, without a group."""


def training_fetcher(config: Config, sets: Sets) -> BatchFetcher:
    """Positions of the first phase's stream -> batches, as its loader processes make them; damaged files stood in for.

    Raises `PreflightError`.
    """
    stream = build_stream(config, sets.train, 0)
    return BatchFetcher(sets.train, indices=stream.indices, transforms=sets.train_transforms, seed=config.seed,
                 mixing=build_mixing(config), skip_unreadable=True)


def draw_sheet(config: Config, sets: Sets, batch: Batch, file: Path) -> bool:
    """Draws a training batch as it enters the model, titled by its targets; whether it holds images, to be drawn.
    Raises `PreflightError` where the file cannot be written."""
    if not (isinstance(batch.inputs, Tensor) and batch.inputs.dim() == 4):
        return False
    seen = build_forward(config, CPU.device).inputs(batch.inputs)
    task = build_task(config, sets)
    titles = [] if config.data.mix else [task.named(target) for target in batch.targets]
    save_sheet(contact_sheet(list(seen), titles, columns=6), file)
    return True


def save_sheet(sheet: Image.Image, file: Path) -> None:
    """Writes a sheet, in the format that the file's name ends in. Raises `PreflightError` where that cannot be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(file)
    except (OSError, ValueError) as error:  # PIL's for an ending it does not know
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PreflightError(Fault(what=f"the sheet cannot be written: {reason}", where=short(file),
                                   remedy="Name another file, for example: --sheet sheet.png")) from error


def mistakes_sheet(task: Task, samples: Samples, transforms: Sequence[Transform], results: Results, *, most: int,
                   columns: int) -> Image.Image | None:
    """What the model is most wrong about, worst first, titled by prediction and truth; None where there is nothing, or
    where inputs are no images."""
    if not (mistakes := task.mistakes(results, most)):
        return None
    fetch = BatchFetcher(samples, indices=lambda positions: positions, transforms=transforms)
    inputs = fetch.__getitems__([results.numbers[mistake.sample] for mistake in mistakes]).inputs
    if not (isinstance(inputs, Tensor) and inputs.dim() == 4):
        return None
    return contact_sheet(list(inputs), [mistake.title for mistake in mistakes], columns=columns)
