"""How many samples a rank computes at once, and fewer from the step on for which a rank's memory is too small.

With `micro_batch_size: auto` a step is repeated, in smaller micro-batches, until it fits into the memory of all ranks.
So they have to agree before they wait for each other in a collective: DistributedDataParallel begins to sum gradients
while the backward pass still runs, and a rank that fails there would leave the others waiting. The gradients are
therefore summed when all ranks have theirs (`Reducible`). The ranks agree through the hosts, and wait for no GPU.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from drumbeat.configs.errors import hang
from drumbeat.data.order import micro_batches
from drumbeat.trainers.world import World

Configured = int | Literal["auto"] | None
"""The config's `micro_batch_size`."""

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
"""In RuntimeErrors about memory: of CUDA, of torch's allocator on Linux and on Windows, of cuBLAS and cuDNN."""

AT_A_TIME = "with one sample at a time"
"""In errors, for the verdict (`launch/attempts/meanings.py`)."""


def largest(configured: Configured, share: int) -> int:
    """The most samples that are computed at once, of the `share` of a rank; with auto, if they fit."""
    return min(share, configured) if isinstance(configured, int) else share


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the host has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY))


class MicroBatches:
    """The size of the micro-batches of a run on this rank, the same on all ranks."""

    def __init__(self, configured: Configured, world: World, found: int | None = None) -> None:
        """`found` is the size that an earlier attempt has found with auto; None if it has divided nothing."""
        self.searches = configured == "auto"
        self.world = world
        self.size = configured if isinstance(configured, int) else found if self.searches else None
        """The most samples at once; None for all of a rank's share."""

    @property
    def found(self) -> int | None:
        """The size that was found with auto; None if nothing had to be divided."""
        return self.size if self.searches else None

    @property
    def reduces_late(self) -> bool:
        """Whether the gradients of the ranks are summed after the backward pass, and not during it."""
        return self.searches and not self.world.is_alone

    def parts(self, size: int) -> list[range]:
        """The rows of the micro-batches of `size` samples."""
        return micro_batches(size, self.size or size)

    def fitting(self, compute: Callable[[], Tensor], share: int) -> Tensor | None:
        """What `compute` returns, in a search; None if a rank is out of memory. All ranks then divide what they compute
        at once by two, and the caller repeats the step. `share` is the largest part of the batch that a rank has.
        Raises `torch.OutOfMemoryError`, and on the other ranks a `RuntimeError`, if one sample is too much."""
        found, error = None, None
        try:
            found = compute()
        except Exception as failed:
            if not is_out_of_memory(failed):
                raise
            error = failed
        rank = self._agreed(-1 if error is None else self.world.rank)
        if rank < 0:
            return found
        tried = largest(self.size, share)
        if tried == 1:
            if error is None:
                raise RuntimeError(f"rank {rank} is out of memory {AT_A_TIME}")
            raise torch.OutOfMemoryError(f"{AT_A_TIME}: {error}") from error
        del found, error  # they hold the activations
        gc.collect()
        if self.world.device.type == "cuda":
            torch.cuda.empty_cache()
        self.size = -(-tried // 2)
        if self.world.is_main:
            print(hang("memory     ", f"rank {rank} is out of memory with {tried} samples at a time: from here on, "
                                      f"each rank computes at most {self.size} at a time"), flush=True)
        return None

    def _agreed(self, rank: int) -> int:
        """The highest of the ranks that are out of memory; -1 if none is."""
        found = torch.tensor(rank)
        if not self.world.is_alone:
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)


class Reducible(nn.Module):
    """A model in DistributedDataParallel, called as the model; its gradients are summed by `reduce_gradients`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.reducing = False

    def forward(self, *inputs: Any, **named: Any) -> Any:
        if self.reducing:
            return [_Nothing.apply(one) for one in self.parameters() if one.grad is not None]  # type: ignore[no-untyped-call]
        return self.model(*inputs, **named)


def reduce_gradients(replica: nn.Module) -> None:
    """Replaces the gradients that were computed in `no_sync` by their mean over the ranks, in the buckets and the order
    in which DistributedDataParallel sums those of a backward pass: it is a backward pass that adds -0.0 to each."""
    reducible = replica.module
    assert isinstance(reducible, Reducible)
    reducible.reducing = True
    try:
        outputs = replica()
    finally:
        reducible.reducing = False
    torch.autograd.backward(outputs, [torch.ones_like(one) for one in outputs])


class _Nothing(torch.autograd.Function):
    """A scalar whose gradient for a parameter is -0.0, which changes no bit of what it is added to: 0.0 would change
    -0.0 (IEEE 754, 6.3)."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor) -> Tensor:
        ctx.parameter = parameter
        return torch.zeros((), dtype=parameter.dtype, device=parameter.device)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Tensor:
        one: Tensor = ctx.parameter
        assert one.grad is not None
        if one.grad.is_sparse:
            return torch.zeros_like(one.grad)  # without entries
        return torch.zeros((), dtype=one.dtype, device=one.device).neg().expand_as(one)
