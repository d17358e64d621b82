"""Checks before a run whether BatchNorm can be trained on the parts of its batches."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.schema import Config
from drumbeat.data.order import micro_batches, shard
from drumbeat.trainers.micro_batches import largest
from drumbeat.trainers.sync_batchnorm import check_synchronizable


def check_norms(config: Config, name: str, model: nn.Module, frozen: Collection[nn.Module], world_size: int,
                device: str) -> None:
    """Raises `PreflightError` if a phase trains BatchNorm1d on one sample at a time, or if not all ranks would take
    part each time when BatchNorm shares its statistics. The modules in `frozen` are not trained; `device` is "cpu" or
    "cuda"."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module not in frozen]
    if not norms:
        return
    phase = config.phases[name]
    assert phase is not None
    size = phase.batch_size or config.batch_size
    where = f"phases.{name}.batch_size" if phase.batch_size else "batch_size"
    count, ranks = config.virtual_ranks or world_size, "virtual ranks" if config.virtual_ranks else "ranks"
    shares = [len(shard(size, rank, count)) for rank in range(count)]
    parts = [micro_batches(one, largest(config.micro_batch_size, one)) for one in shares]
    if config.sync_batchnorm and world_size > 1:
        check_synchronizable(model, device, world_size)
        _check_together(config, {len(one) for one in parts}, where, f"a batch of {size} on {world_size} ranks")
    elif min(len(part) for one in parts for part in one) == 1 and any(isinstance(one, nn.BatchNorm1d) for one in norms):
        raise PreflightError(Fault(what="BatchNorm1d cannot be trained on one sample at a time", where=where,
                                   given=f"a batch of {size} on {count} {ranks}, in parts of at most "
                                         f"{largest(config.micro_batch_size, max(shares))}",
                                   remedy=f"Use a larger batch, fewer {ranks}, or another micro_batch_size."))


def _check_together(config: Config, numbers: Collection[int], where: str, batch: str) -> None:
    """Raises `PreflightError` if the ranks would not meet in each forward pass. `numbers` are those of their
    micro-batches in a step."""
    reason, place, remedy = "", where, f"Choose a {where} that the number of ranks divides."
    if config.micro_batch_size == "auto":
        reason, place = "a rank that is out of memory would leave the others waiting", "micro_batch_size"
        remedy = "Configure a number."
    elif config.evaluation.batch_statistics:
        reason, place = "ranks evaluate different numbers of batches", "evaluation.batch_statistics"
        remedy = "Set one of them to false."
    elif len(numbers) > 1:
        reason = f"the ranks have {' or '.join(map(str, sorted(numbers)))} micro-batches in a step"
    if reason:
        raise PreflightError(Fault(what=f"the statistics of BatchNorm cannot be those of all ranks: {reason}",
                                   where=place, given=f"sync_batchnorm: true, {batch}", remedy=remedy))


def norm_notes(config: Config, model: nn.Module) -> list[str]:
    """What a user should know about the BatchNorm of a model."""
    has_norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    if config.sync_batchnorm and not has_norms:
        return ["sync_batchnorm changes nothing, because the model has no BatchNorm"]
    if config.micro_batch_size != "auto" or not has_norms:
        return []
    return ["BatchNorm computes its statistics over a micro-batch, so with micro_batch_size: auto the result depends "
            "on the memory of the devices"]
