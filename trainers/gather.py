"""Gathers a batch from all ranks, for losses that compare samples with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from drumbeat.data.structure import describe, mapped
from drumbeat.trainers.world import World


def gathered(values: Any, world: World, sizes: Sequence[int]) -> Any:
    """The rows of all ranks in the order of the ranks, which have `sizes` rows: of each tensor in a structure. Tensors
    without dimensions belong to the whole batch and stay as they are. Raises `TypeError` for lists and other objects.

    Each rank computes the same loss from them, and its gradient for all rows; the backward pass takes this rank's own
    rows. They are multiplied by the world size, because DistributedDataParallel averages over ranks; the gradients of
    what is used after gathering, such as parameters of the loss, are the same on all ranks, and stay so.
    """
    def rows(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"a loss of the whole batch needs tensors, and this is a {type(leaf).__name__}")
        if not leaf.dim():
            return leaf
        if len(leaf) != sizes[world.rank]:
            raise TypeError(f"a loss of the whole batch needs a row for each of the {sizes[world.rank]} samples, and "
                            f"this is {describe(leaf)}")
        return leaf if world.size == 1 else _Gather.apply(leaf, world, sizes)  # type: ignore[no-untyped-call]

    return mapped(rows, values)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, world: World, sizes: Sequence[int]) -> Tensor:
        ctx.start, ctx.rows, ctx.world_size = sum(sizes[:world.rank]), len(own), world.size
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[:len(own)] = own
        as_bytes = padded.reshape(max(sizes), -1).view(torch.uint8)  # gloo does not know all types
        parts = [torch.empty_like(as_bytes) for _ in sizes]
        dist.all_gather(parts, as_bytes)
        return torch.cat([part.view(own.dtype).view(padded.shape)[:size]
                          for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.start:ctx.start + ctx.rows] * ctx.world_size, None, None
