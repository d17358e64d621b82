"""Evaluation that counts every sample once and gives the same numbers on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from drumbeat.data.device import on_device
from drumbeat.data.loader import BatchFetcher, Samples, Transform, batches, chunks
from drumbeat.data.order import key
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.tasks import Results, Task
from drumbeat.trainers.world import World

SEED = 0
"""Sets, transforms and models that draw random numbers in an evaluation draw the same in each one."""


def evaluate(model: nn.Module, task: Task, samples: Samples, transforms: list[Transform], *, forward: Forward,
             world: World, batch_size: int, workers: int, skip_unreadable: bool = False,
             batch_statistics: bool = False, heartbeat: Callable[[], None] = lambda: None) -> Results:
    """Losses, outputs and targets of all samples, in the order of the set, on every rank.

    The set is cut into fixed chunks, because the last digits of an output depend on the batch it was computed in;
    rank j mod W evaluates chunk j. `model` is the module itself, not its DistributedDataParallel wrapper, because ranks
    may have different numbers of chunks. With `skip_unreadable`, a sample that cannot be read is replaced by another
    one while its chunk is computed, and then left out. For `batch_statistics` see `evaluation_mode`.
    """
    n = len(samples)
    mine = chunks(n, batch_size, rank=world.rank, world_size=world.size)
    fetch = BatchFetcher(samples, indices=lambda positions: positions, transforms=transforms, seed=SEED,
                  skip_unreadable=skip_unreadable)
    parts: list[tuple[Tensor, ...]] = []
    with evaluation_mode(model, batch_statistics=batch_statistics):
        source = batches(fetch, mine, workers=workers if len(mine) > 1 else 0, pin_memory=world.device.type == "cuda")
        for batch in on_device(source, world.device):
            world.seed(key(SEED, "evaluate", int(batch.positions[0])))
            with forward.autocast():
                outputs = model(forward.inputs(batch.inputs))
                losses = task.losses(outputs, batch.targets)
                _check_tensors(outputs, batch.targets)
            parts.append((losses.float().cpu(), outputs.float().cpu(), batch.targets.cpu(),
                          batch.replaced.to(torch.uint8)))
            heartbeat()
    losses, outputs, targets, replaced = (_assembled([part[item] for part in parts], n, batch_size, world)
                                          for item in range(4))
    if not replaced.any():
        return Results(losses, outputs, targets)
    read = (replaced == 0).nonzero().flatten()
    return Results(losses[read], outputs[read], targets[read], read)


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


def _check_tensors(outputs: Any, targets: Any) -> None:
    """Raises TypeError unless both are tensors."""
    for name, value in (("the model returns", outputs), ("the set's targets are", targets)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} a {type(value).__name__}; an evaluation needs one tensor, [n, ...]")


def _assembled(parts: list[Tensor], n: int, batch_size: int, world: World) -> Tensor:
    """One tensor of n rows from the chunks of all ranks, in the order of the set. Raises ValueError if the rows of two
    chunks have different shapes."""
    if differing := [part for part in parts if part.shape[1:] != parts[0].shape[1:]]:
        raise ValueError(f"two batches have the shapes {list(parts[0].shape)} and {list(differing[0].shape)}; an "
                         "evaluation needs outputs and targets of one shape: pad them to one length")
    if world.size == 1:
        return torch.cat(parts)
    rows = -(-n // (batch_size * world.size)) * batch_size
    like = _row_like(parts, world)
    padded = like.new_zeros((rows, *like.shape))
    filled = 0
    for part in parts:
        padded[filled:filled + len(part)] = part
        filled += len(part)
    whole = like.new_zeros((n, *like.shape))
    as_bytes = padded.reshape(rows, -1).view(torch.uint8)  # gloo does not know all types
    for rank, part in enumerate(world.all_gather(as_bytes)):
        gathered, taken = part.view(padded.dtype).view(padded.shape), 0
        for chunk in chunks(n, batch_size, rank=rank, world_size=world.size):
            whole[chunk.start:chunk.stop] = gathered[taken:taken + len(chunk)]
            taken += len(chunk)
    return whole


TYPES = (torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool, torch.float16, torch.bfloat16,
         torch.int16, torch.int8, torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.complex128)


def _row_like(parts: list[Tensor], world: World) -> Tensor:
    """A row of zeros of the right shape and type, also on ranks without a chunk: rank 0 always has one, and broadcasts
    its shape and type."""
    description = np.zeros(10, dtype=np.int64)
    if world.is_main:
        shape = parts[0].shape[1:]
        description[:2 + len(shape)] = TYPES.index(parts[0].dtype), len(shape), *shape
    kind, dims, *sizes = world.broadcast(torch.from_numpy(description)).tolist()
    return torch.zeros(sizes[:dims], dtype=TYPES[kind])
