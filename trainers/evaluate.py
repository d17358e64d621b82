"""Evaluation that counts every sample once and gives the same numbers on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from drumbeat.data.device import on_device
from drumbeat.data.loader import BatchFetcher, Collate, Samples, Transform, WholeBatches, batches, chunks
from drumbeat.data.order import key
from drumbeat.trainers.collect import SEED, Collector, Part, part_of
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.metrics import restart
from drumbeat.trainers.model_and_task import on_host
from drumbeat.trainers.tasks import Results, Task
from drumbeat.trainers.tasks.task import Draws, kept_outputs, losses_of
from drumbeat.trainers.world import World


class Few:
    """A few samples from all over a set, which reads whole batches if the set does."""

    def __init__(self, of: Samples, n: int) -> None:
        self.of = of
        self.indices = np.unique(np.linspace(0, len(of) - 1, n).astype(np.int64))
        if isinstance(of, WholeBatches):
            self.fetch = lambda indices: of.fetch(self.indices[indices])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Any:
        return self.of[int(self.indices[index])]


def evaluate(model: nn.Module, task: Task, samples: Samples, transforms: list[Transform], *, forward: Forward,
             world: World, batch_size: int, workers: int, skip_unreadable: bool = False,
             batch_statistics: bool = False, metrics: Mapping[str, Any] | None = None, draws: int = 0,
             collate: Collate | None = None, name: str = "",
             heartbeat: Callable[[], None] = lambda: None) -> Results | None:
    """The results of all samples, in the order of the set, on rank 0; None on the others.

    The set is cut into fixed chunks, because the last digits of an output depend on the batch it was computed in; rank
    j mod W evaluates chunk j. Rank 0 takes the chunks in the order of the set; another rank has one chunk in memory,
    and sends what is kept of it (`collect.Part`). `model` is the module itself, not its DistributedDataParallel
    wrapper, because ranks may have different numbers of chunks. With `skip_unreadable`, a sample that cannot be read is
    replaced by another one while its chunk is computed, and then left out. For `batch_statistics` see
    `evaluation_mode`, for `collate` and `name` `BatchFetcher`.

    Rank 0 updates the `metrics` with each chunk, and keeps the predictions of the `draws` worst samples if the task
    draws. `heartbeat` is called after each chunk: on rank 0 of the set, on the others of this rank.
    """
    draws = draws if isinstance(task, Draws) else 0
    metrics = metrics or {}
    restart(metrics.values())
    mine = chunks(len(samples), batch_size, rank=world.rank, world_size=world.size)
    fetch = BatchFetcher(samples, indices=lambda positions: positions, transforms=transforms, seed=SEED,
                         skip_unreadable=skip_unreadable, collate=collate, name=name)
    with evaluation_mode(model, batch_statistics=batch_statistics):
        own = _own_parts(model, task, fetch, mine, forward=forward, world=world, workers=workers, draws=draws > 0,
                         metrics=bool(metrics))
        if not world.is_main:
            for part in own:
                world.send(part.packed())
                heartbeat()
            return None
        collector = Collector(on_host(task), metrics, draws, len(samples))
        for number in range(-(-len(samples) // batch_size)):
            rank = number % world.size
            collector.add(next(own) if rank == 0 else collector.unpacked(world.receive(rank)))
            heartbeat()
    return collector.results()


def _own_parts(model: nn.Module, task: Task, fetch: BatchFetcher, mine: list[range], *, forward: Forward, world: World,
               workers: int, draws: bool, metrics: bool) -> Iterator[Part]:
    """What is kept of each chunk of this rank."""
    source = batches(fetch, mine, workers=workers if len(mine) > 1 else 0, pin_memory=world.device.type == "cuda")
    for batch in on_device(source, world.device):
        world.seed(key(SEED, "evaluate", int(batch.positions[0])))
        with forward.autocast():
            outputs = forward.outputs(model, batch.inputs)
            losses = losses_of(task, outputs, batch.targets, len(batch.positions))
            part = part_of(task, batch, kept_outputs(task, outputs), losses, draws=draws, metrics=metrics)
        yield part


@contextmanager
def evaluation_mode(model: nn.Module, *, batch_statistics: bool = False) -> Iterator[None]:
    """The model in evaluation mode, without gradients. With `batch_statistics`, BatchNorm uses the statistics of each
    batch in place of its running ones, which are restored at the end."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)] if batch_statistics else []
    kept = [(norm.running_mean, norm.running_var) for norm in norms]
    model.eval()
    try:
        for norm in norms:
            norm.running_mean = norm.running_var = None
        with torch.no_grad():  # not inference_mode: training could not use what a model caches here
            yield
    finally:
        for norm, (average, variance) in zip(norms, kept, strict=True):
            norm.running_mean, norm.running_var = average, variance
