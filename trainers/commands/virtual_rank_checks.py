"""Checks before a run whether its model and its loss can have the same bits at any number of ranks."""

from __future__ import annotations

from torch import nn

from drumbeat.configs.errors import Fault
from drumbeat.configs.schema import Config
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.tasks.task import WholeBatchLoss


def virtual_rank_faults(config: Config, task: Task | None, model: nn.Module | None) -> list[Fault]:
    """Why they cannot; empty without `virtual_ranks`. What the config alone says is checked when the job is planned."""
    if config.virtual_ranks is None:
        return []
    given = f"virtual_ranks: {config.virtual_ranks}"
    faults: list[Fault] = []
    if isinstance(task, WholeBatchLoss):
        faults.append(Fault(what="a loss of the whole batch needs the outputs of all virtual ranks at once",
                            where="task", given=given, remedy="Set virtual_ranks: null, or use a task with `losses`."))
    if config.micro_batch_size == "auto":
        faults.append(Fault(what="how much fits into memory depends on the device, and the bits on how much is "
                                 "computed at once", where="micro_batch_size",
                            given=f"{given}, micro_batch_size: auto",
                            remedy="Configure a number: micro_batch_size=N"))
    names = [name for name, one in model.named_modules() if isinstance(one, nn.SyncBatchNorm)] if model else []
    if names or config.sync_batchnorm:
        faults.append(Fault(what="SyncBatchNorm computes the statistics of the real ranks, whose number may change",
                            where="sync_batchnorm" if config.sync_batchnorm else "model",
                            given=f"{given}, {'sync_batchnorm: true' if config.sync_batchnorm else names[0]}",
                            remedy="Use BatchNorm, which normalizes by virtual rank, or set virtual_ranks: null."))
    return faults
