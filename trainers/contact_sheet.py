"""Contact sheets: training samples as the model sees them, and the samples with the worst predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.layers import short
from drumbeat.configs.output_file import replacing
from drumbeat.configs.schema import Config
from drumbeat.data.loader import Batch, BatchFetcher, Collate, Samples, Transform, batches
from drumbeat.data.structure import item
from drumbeat.trainers.build import Sets, build_forward, build_mixing, build_stream, build_task
from drumbeat.trainers.collect import SEED
from drumbeat.trainers.tasks import Results, Task
from drumbeat.trainers.tasks.task import Draws
from drumbeat.trainers.tracking import as_rgb, contact_sheet
from drumbeat.trainers.world import World

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
"""A single rank, without a process group."""


def training_fetcher(config: Config, sets: Sets) -> BatchFetcher:
    """Makes batches of positions in the first phase's stream, as its loader workers do; for a damaged file, it takes
    the next sample. Raises `PreflightError`."""
    stream = build_stream(config, sets.train, 0)
    return BatchFetcher(sets.train, indices=stream.indices, transforms=sets.transforms_in(0), seed=config.seed,
                 mixing=build_mixing(config), skip_unreadable=True, collate=sets.collate, name="data.train")


def draw_sheet(config: Config, sets: Sets, batch: Batch, file: Path) -> bool:
    """Draws a training batch as it enters the model, titled by its targets. Returns False if it does not hold images.
    Raises `PreflightError` if the file cannot be written."""
    if not (isinstance(batch.inputs, Tensor) and batch.inputs.dim() == 4):
        return False
    inputs = build_forward(config, CPU.device).inputs(batch.inputs)
    task = build_task(config, sets)
    targets = [item(batch.targets, number) for number in range(len(inputs))]
    titles = [] if config.data.mix else [task.to_text(target) for target in targets]
    images = [task.draw(as_rgb(image), target) for image, target in zip(inputs, targets, strict=True)] if (
        isinstance(task, Draws)) else list(inputs)
    save_sheet(contact_sheet(images, titles, columns=6), file)
    return True


def save_sheet(sheet: Image.Image, file: Path) -> None:
    """Writes a sheet in the format of the file's suffix. Raises `PreflightError` or `RunError` if it cannot be
    written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as new:
            sheet.save(new)
    except (OSError, ValueError) as error:  # PIL raises ValueError for an unknown suffix
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PreflightError(Fault(what=f"the sheet cannot be written: {reason}", where=short(file),
                                   remedy="Choose another file, for example: --sheet sheet.png")) from error


def worst_samples_sheet(task: Task, samples: Samples, transforms: Sequence[Transform], results: Results, *, most: int,
                        columns: int, collate: Collate | None = None, workers: int = 0) -> Image.Image | None:
    """The samples with the worst predictions, worst first, titled by prediction and target; None if there are none, or
    if inputs are not images. If the task draws, each sample is two images: its target and its prediction.

    With loader workers, one of them reads the samples: a file that a dataset opens when it is first read would
    otherwise be open in this process, and shared by the workers that are forked later."""
    if not (worst := task.worst_samples(results, most)):
        return None
    fetch = BatchFetcher(samples, indices=lambda positions: positions, transforms=transforms, seed=SEED,
                         collate=collate)
    (batch,) = batches(fetch, [[results.indices[sample.index] for sample in worst]], workers=min(1, workers),
                       pin_memory=False)
    if not (isinstance(batch.inputs, Tensor) and batch.inputs.dim() == 4):
        return None
    images, titles = list(batch.inputs), [sample.title for sample in worst]
    if isinstance(task, Draws):
        images = [task.draw(as_rgb(image), value) for number, (image, sample) in enumerate(
                      zip(images, worst, strict=True)) for value in (item(batch.targets, number),
                                                                     results.worst[sample.index])]
        titles = [title for sample in worst for title in ("actual", sample.title)]
        columns += columns % 2
    return contact_sheet(images, titles, columns=columns, heading=task.worst_title)
