"""The loss of a global batch, from the losses of its samples on this rank or from the outputs of all ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from drumbeat.data.order import key, shard
from drumbeat.trainers.gather import gathered
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.tasks.logged import summed_and_logged
from drumbeat.trainers.tasks.task import WholeBatchLoss
from drumbeat.trainers.virtual_ranks import Division
from drumbeat.trainers.world import World

TINY = 1e-30
"""Replaces a sum of weights that is 0, so that a batch in which no sample counts has a zero gradient and not NaN."""


class BatchLoss:
    """The losses of a task on this rank, in the training phase `number`."""

    def __init__(self, task: Task, world: World, division: Division, *, batch_size: int, seed: int, number: int,
                 mixes: bool) -> None:
        """`batch_size` is the number of samples over all ranks, `mixes` whether targets are those of `data.mixing`."""
        self.task = task
        self.world = world
        self.division = division
        self.averaged = 1 if division.virtual else world.size
        """Over how many gradients DistributedDataParallel averages."""
        self.batch_size = batch_size
        self.seed = seed
        self.number = number
        self.mixes = mixes
        self.whole_batch = task if isinstance(task, WholeBatchLoss) else None
        self.weights: Callable[[Any], Any] = getattr(task, "weights", lambda targets: None)

    def scale(self, parts: Sequence[Any]) -> Tensor | float:
        """The gradient of the summed losses of each part, whose targets these are: the number of gradients that are
        averaged, over the number of samples in the global batch or, if the task has weights, over their sum in all
        parts. 1 for a loss of the whole batch."""
        if self.whole_batch is not None:
            return 1.0
        sums = torch.zeros(self.division.count, dtype=torch.float64, device=self.world.device)
        for part, targets in zip(self.division.own, parts, strict=True):
            each = self.weights(targets["own"] if self.mixes else targets)
            if each is None:
                return self.averaged / self.batch_size
            if self.mixes:
                each = mixed(each, self.weights(targets["partner"]), targets["kept"])
            sums[part] = each.sum(dtype=torch.float64)
        total = self.world.all_reduce(sums).sum()
        if total.device.type == "cpu":
            return self.averaged / max(float(total), TINY)
        return (self.averaged / total.clamp(min=TINY)).float()  # a float would make the host wait for the device

    def __call__(self, outputs: Any, targets: Any, scale: Tensor | float, step: int, *, alone: bool) -> Tensor:
        """[n]: the losses of a micro-batch's samples; or a scalar, the task's loss of the batch of all ranks. The
        latter is computed by each rank, from one seed, and needs all samples of this rank, so its micro-batch has to be
        `alone`. Raises `ValueError` if it is not."""
        if self.whole_batch is None:
            return summed_and_logged(self.each(outputs, targets), scale / self.averaged)
        if not alone:
            raise ValueError("a loss of the whole batch cannot be computed in micro-batches: micro_batch_size: null")
        if not self.world.is_alone:
            sizes = [len(shard(self.batch_size, rank, self.world.size)) for rank in range(self.world.size)]
            outputs, targets = (gathered(values, self.world, sizes) for values in (outputs, targets))
        self.world.seed(key(self.seed, "loss", self.number, step))
        return summed_and_logged(self.whole_batch.batch_loss(outputs, targets), 1 / self.world.size)

    def each(self, outputs: Any, targets: Any) -> Tensor | Mapping[str, Tensor]:
        """The loss of each sample, or its terms; of a mixed one, the mean of those for both targets, weighted as its
        inputs are."""
        if not self.mixes:
            return self.task.losses(outputs, targets)
        own, partner = (self.task.losses(outputs, targets[whose]) for whose in ("own", "partner"))
        found: Tensor | Mapping[str, Tensor] = tree_map(partial(mixed, kept=targets["kept"]), own, partner)
        return found


def mixed(own: Tensor, partner: Tensor, kept: Tensor) -> Tensor:
    """float32 [n]: the values of mixed samples."""
    return own * kept + partner * (1 - kept)
