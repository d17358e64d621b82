"""Checks before a run whether BatchNorm can be trained on the parts of its batches."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.schema import Config
from drumbeat.data.order import micro_batches, shard
from drumbeat.trainers.micro_batches import largest


def check_norms(config: Config, name: str, model: nn.Module, frozen: Collection[nn.Module], world_size: int) -> None:
    """Raises `PreflightError` if a phase trains BatchNorm1d on one sample at a time. The modules in `frozen` are
    not trained."""
    phase = config.phases[name]
    assert phase is not None
    size = phase.batch_size or config.batch_size
    shares = [len(shard(size, rank, world_size)) for rank in range(world_size)]
    smallest = min(len(part) for one in shares for part in
                   micro_batches(one, largest(config.micro_batch_size, one)))
    if smallest == 1 and any(isinstance(module, nn.BatchNorm1d) and module not in frozen for module in model.modules()):
        raise PreflightError(Fault(what="BatchNorm1d cannot be trained on one sample at a time",
                                   where=f"phases.{name}.batch_size" if phase.batch_size else "batch_size",
                                   given=f"a batch of {size} on {world_size} ranks, in parts of at most "
                                         f"{largest(config.micro_batch_size, max(shares))}",
                                   remedy="Use a larger batch, fewer ranks, or another micro_batch_size."))


def norm_notes(config: Config, model: nn.Module) -> list[str]:
    """What a user should know about the BatchNorm of a model."""
    has_norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    if config.micro_batch_size != "auto" or not has_norms:
        return []
    return ["BatchNorm computes its statistics over a micro-batch, so with micro_batch_size: auto the result depends "
            "on the memory of the devices"]
