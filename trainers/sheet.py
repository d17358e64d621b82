"""Samples as the model sees them in training: a batch of them, and a sheet to look at."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from configs.schema import Config
from data.loader import Batch, Fetch
from trainers.build import Sets, build_batch_transforms, build_mixing, build_stream, build_task
from trainers.stage import Forward
from trainers.tracking import contact_sheet
from trainers.world import World

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
"""A rank by itself, without a group."""


def training_fetch(config: Config, sets: Sets) -> Fetch:
    """Positions of the first phase's stream -> batches, as its loader processes make them; damaged files stood in for.

    Raises `PrepareError`.
    """
    stream = build_stream(config, sets.train, 0)
    return Fetch(sets.train, indices=stream.indices, transforms=sets.train_transforms, seed=config.seed,
                 mixing=build_mixing(config), skip_unreadable=True)


def draw_sheet(config: Config, sets: Sets, batch: Batch, file: Path) -> bool:
    """Draws a training batch as it enters the model, titled by its targets; whether it holds images, to be drawn."""
    if not (isinstance(batch.inputs, Tensor) and batch.inputs.dim() == 4):
        return False
    seen = Forward(config, CPU, build_batch_transforms(config)).inputs(batch.inputs)
    task = build_task(config, sets)
    titles = [] if config.data.mix else [task.named(target) for target in batch.targets]
    file.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(list(seen), titles, columns=6).save(file)
    return True
