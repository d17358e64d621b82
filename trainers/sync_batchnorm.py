"""BatchNorm with the statistics of all ranks' samples: torch's SyncBatchNorm in place of the model's own modules.

Parameters, buffers and names stay, so checkpoints are those of the plain model. Conversion and refusals are tested on
the CPU; a training on several GPUs is not.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.trainers.world import World

REPLACES = "_replaces"
"""The attribute of a converted module with the class that it had, by which a config selects it."""


def check_synchronizable(model: nn.Module, device: str, world_size: int) -> None:
    """Raises `PreflightError` if the ranks cannot share the statistics of the model's BatchNorm."""
    if world_size == 1:
        return
    if device == "cpu":
        raise PreflightError(Fault(
            what="the statistics of BatchNorm cannot be those of all ranks on the CPU: torch's SyncBatchNorm works on "
                 "GPUs alone", where="sync_batchnorm", given=f"sync_batchnorm: true, {world_size} ranks on the CPU",
            remedy="Train on one rank or on GPUs, or set sync_batchnorm: false."))
    others = {type(module).__name__: None for module in model.modules() if isinstance(module, _BatchNorm) and not (
        isinstance(module, nn.SyncBatchNorm) or type(module).forward is _BatchNorm.forward)}
    if others:
        raise PreflightError(Fault(
            what="torch's SyncBatchNorm would replace modules that compute more than BatchNorm", where="sync_batchnorm",
            given=", ".join(others), remedy="Set sync_batchnorm: false, or build the model with torch.nn.BatchNorm."))


def synchronized(model: nn.Module, world: World) -> nn.Module:
    """The model, changed in place, whose BatchNorm uses the statistics of all ranks' samples in training; as it is on
    one rank. Raises `PreflightError`."""
    check_synchronizable(model, world.device.type, world.size)
    return model if world.size == 1 else converted(model)


def converted(model: nn.Module) -> nn.Module:
    """The model, changed in place, with SyncBatchNorm in place of BatchNorm."""
    found: dict[nn.Module, nn.Module] = {}
    for module in [*model.modules()]:
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            found[module] = nn.SyncBatchNorm.convert_sync_batchnorm(module)
            setattr(found[module], REPLACES, type(module))
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child in found:
                parent._modules[name] = found[child]
    return found.get(model, model)
