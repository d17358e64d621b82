"""Digests of gradients for the step log: integer sums of their bits, which do not depend on the order of summation.

Of a large tensor, all bits are summed as 64-bit words: a change of any one bit changes the sum. That takes as long as
reading the memory, but does not notice two values that have changed places, so some values of it are also multiplied
by a number of their own, as all values of small tensors and the sums are. The host waits for none of this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from drumbeat.trainers.guards import INTEGERS

SMALL = 4096
"""All values of tensors with at most so many are multiplied."""
SAMPLED = 256
"""The number of values of a larger one that are."""
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
"""2^64 divided by the golden ratio, as int64: the multiples of it are spread evenly (Knuth, The Art of Computer
Programming, volume 3, 6.4)."""
MIXED = 0xBF58476D1CE4E5B9 - 2**64
"""A factor of the generator SplitMix64 (Steele, Lea and Flood 2014), as int64."""


def digest_row(gradients: Sequence[Tensor]) -> Tensor:
    """int32 or smaller [n]: what `fold` makes a digest of, in memory of its own. n is the same for gradients of equal
    shapes."""
    if gradients and (row := _simple_row(gradients)) is not None:
        return row
    by_type: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for gradient in gradients:
        for flat in _flat(gradient):
            by_type[flat.dtype].extend(_pieces(flat))
    device = gradients[0].device if gradients else None
    rows = [torch.cat([one if one.device == device else one.to(device) for one in pieces]).view(
        INTEGERS[min(4, pieces[0].element_size())]) for pieces in by_type.values()]
    if len(rows) == 1:
        return rows[0]
    return torch.cat([row.long() for row in rows]) if rows else torch.zeros(1, dtype=torch.int64)


def _simple_row(gradients: Sequence[Tensor]) -> Tensor | None:
    """The same for contiguous float32 gradients on one device of even sizes, in two thirds of the time; None for
    others."""
    device, pieces = gradients[0].device, []
    for one in gradients:
        if one.dtype is not torch.float32 or one.device != device or not one.is_contiguous():
            return None
        n = one.numel()
        if n > SMALL:
            if n % 2 or one.storage_offset() % 2:
                return None
            flat = one.view(-1)
            pieces.append(flat.view(torch.int64).sum(0, keepdim=True).view(torch.float32))
            one = flat[::n // SAMPLED]
        pieces.append(one if one.dim() == 1 else one.view(-1))
    return torch.cat(pieces).view(torch.int32)


def fold(rows: Tensor) -> Tensor:
    """int64 [k]: the digest of each row [k, n] of integers of at most 32 bits. Not 0, except by chance. The numbers by
    which they are multiplied are odd, so no bit is lost."""
    numbers = torch.arange(1, rows.shape[1] + 1, device=rows.device) * GOLDEN
    numbers = (numbers ^ numbers >> 29) * MIXED  # multiples alone have simple sums, in which changes may cancel out
    return (rows * (numbers ^ numbers >> 32 | 1)).sum(1) + GOLDEN


def _flat(gradient: Tensor) -> Iterator[Tensor]:
    """The memory of a gradient, [n]; of a sparse one, those of its indices and its values."""
    if gradient.layout is not torch.strided:
        yield from (part.reshape(-1) for part in (gradient._indices(), gradient._values()))
        return
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient)
    if gradient.is_contiguous():
        yield gradient.view(-1)
        return
    span = 1 + sum((size - 1) * stride for size, stride in zip(gradient.shape, gradient.stride(), strict=True))
    yield gradient.as_strided((span,), (1,)) if span == gradient.numel() else gradient.reshape(-1)


def _pieces(flat: Tensor) -> Iterator[Tensor]:
    """A small tensor; of a large one, the sum of its 64-bit words, some of its values, and what is left behind the last
    word. Of the type of the tensor."""
    if flat.numel() <= SMALL:
        yield flat
        return
    words, rest = _words(flat)
    yield words.sum(0, keepdim=True).view(flat.dtype)
    yield flat[::flat.numel() // SAMPLED]
    if rest is not None:
        yield rest


def _words(flat: Tensor) -> tuple[Tensor, Tensor | None]:
    """The memory of a tensor [n] as int64, and its values behind the last whole word."""
    n, values = flat.numel(), 8 // flat.element_size()
    if flat.storage_offset() % values:
        flat = flat.clone()
    whole = n - n % values
    return (flat.view(torch.int64), None) if whole == n else (flat[:whole].view(torch.int64), flat[whole:])


class OwnGradients:
    """Digests of this rank's own gradients, before they are averaged or summed over the ranks."""

    def __init__(self, replica: torch.nn.Module) -> None:
        """Without DistributedDataParallel, there are only those that `see` takes."""
        self.sums: list[Tensor] = []
        if isinstance(replica, DistributedDataParallel):
            self.size = torch.distributed.get_world_size()
            self.scale = 1 / self.size
            replica.register_comm_hook(self, lambda own, bucket: _reduce(own, bucket))  # torch reads annotations

    def see(self, values: Tensor) -> None:
        """Takes the digest of all gradients, [n], in place of those before."""
        self.sums = [_sum(values)]

    def take(self) -> Tensor | None:
        """int64 [n]: the sums of the last backward pass, one for each of DistributedDataParallel's buckets."""
        sums, self.sums = self.sums, []
        return torch.cat(sums) if sums else None


def _reduce(own: OwnGradients, bucket: Any) -> torch.futures.Future[Tensor]:
    """Averages a torch.distributed.GradBucket as DistributedDataParallel does without a hook, bit for bit (its reducer
    was read in torch 2.14)."""
    buffer = bucket.buffer()
    if buffer.layout is torch.strided:
        own.sums.append(_sum(buffer))
        buffer.mul_(own.scale)
    else:
        buffer.div_(own.size)
    work = torch.distributed.all_reduce(buffer, async_op=True)
    assert work is not None
    return work.get_future().then(_first)  # type: ignore[no-any-return]


def _first(future: torch.futures.Future[list[Tensor]]) -> Tensor:
    return future.value()[0]


def _sum(buffer: Tensor) -> Tensor:
    """int64 [1]: the sum of a tensor [n], read as integers."""
    words, rest = _words(buffer)
    total = words.sum(0, keepdim=True)
    return total if rest is None else total + rest.view(INTEGERS[rest.element_size()]).sum(0, dtype=torch.int64)
