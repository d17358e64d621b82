"""What must not go on unnoticed: a loss that is no number, and ranks that have drifted apart."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from data.loader import Batch
from trainers.world import World

SHOWN = 8
"""Positions of a batch that an error names."""


class NotFiniteError(Exception):
    """A step's gradient is no finite number. It was not taken: weights and buffers are as before it. Tried again, the
    same samples with the same weights would give the same."""


class DivergedError(Exception):
    """The ranks' weights differ, which they never may."""


class Buffers:
    """A model's buffers as they were before a step: what its forward pass may have spoilt."""

    def __init__(self, model: nn.Module) -> None:
        self.live = list(model.buffers())
        self.kept = [value.clone() for value in self.live]

    def keep(self) -> None:
        if self.live:
            torch._foreach_copy_(self.kept, self.live)

    def restore(self) -> None:
        if self.live:
            torch._foreach_copy_(self.live, self.kept)


def not_finite(step: int, loss: Tensor, batch: Batch, rank: int) -> NotFiniteError:
    """The error of one rank at the run's step number `step`. The rank whose own loss is no number names its samples; of
    the others the average of the gradients has told."""
    if bool(torch.isfinite(loss)):
        return NotFiniteError(f"another rank's loss is not finite at step {step}")
    positions, indices = batch.positions.tolist(), batch.indices.tolist()
    pairs = [f"{position} (sample {index})" for position, index in zip(positions, indices, strict=True)]
    more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    return NotFiniteError(f"the loss is {float(loss)} at step {step} of rank {rank}; positions "
                          f"{', '.join(pairs[:SHOWN])}{more}")


def weights_digest(model: nn.Module) -> Tensor:
    """int64 scalar: the sum of all parameters' bits, read as integers. A pass over the weights and nothing else."""
    kinds = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}
    sums = [value.detach().view(kinds[value.element_size()]).sum(dtype=torch.int64) for value in model.parameters()]
    return torch.stack(sums).sum()


def compare_ranks(model: nn.Module, world: World, step: int) -> None:
    """Raises `DivergedError`, on all ranks, where the ranks' weights are not the same to the bit."""
    if world.size == 1:
        return
    digests = [int(digest) for digest in world.gather(weights_digest(model))]
    (common, count), *others = Counter(digests).most_common()
    if others:
        odd = [rank for rank, digest in enumerate(digests) if digest != common]
        whose = "no two ranks' weights are the same" if count == 1 else (
            f"the weights of rank{'s' * (len(odd) > 1)} {', '.join(map(str, odd))} differ from the others'")
        raise DivergedError(f"{whose} after step {step}")
