"""The model as a rank trains it together with the others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.yaml_text import inline
from drumbeat.trainers.micro_batches import Reducible
from drumbeat.trainers.world import SENT, World

IGNORED = "_ddp_params_and_buffers_to_ignore"
"""The attribute of a model with the names of what DistributedDataParallel leaves alone (internal to torch)."""


def compiled(model: nn.Module, arguments: Mapping[str, Any]) -> nn.Module:
    """The model as torch.compile runs it, with these arguments; the model itself if there are none. It has the same
    parameters and buffers, so what is saved and evaluated is the model. Raises `PreflightError` if torch does not take
    the arguments."""
    if not arguments:
        return model
    try:
        return cast(nn.Module, torch.compile(model, **arguments))
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise PreflightError(Fault(what=f"torch.compile does not take these arguments: {reason}", where="compile",
                                   given=inline(arguments))) from error


def wrap(model: nn.Module, world: World, *, find_unused: bool = False, averages: bool = True, reduce_late: bool = False,
         arguments: Mapping[str, Any] = MappingProxyType({})) -> nn.Module:
    """The model, `compiled` with `arguments`, in DistributedDataParallel if there are several ranks. Buffers are
    broadcast before evaluations and not at each forward pass. Without `device_ids`, inputs are not moved to the device,
    so the lengths of texts stay on the host. With `find_unused`, parameters may take no part in a step: those that no
    rank used keep no gradient, as on one rank, and the others get the mean of the ranks' gradients. With `reduce_late`,
    `micro_batches.reduce_gradients` can sum the gradients after a backward pass. Without `averages`, each rank begins
    with rank 0's weights, too, and its gradients are its own: see `ExactSum`."""
    ignored = getattr(model, IGNORED, ())
    if not averages:
        world.broadcast_model(model)
    model = compiled(model, arguments)
    if world.is_alone or not averages:
        return model
    if reduce_late:
        model, ignored = Reducible(model), [f"model.{name}" for name in ignored]
    unsent = [name for name, buffer in model.named_buffers() if buffer.dtype not in SENT]
    if unsent or (ignored and reduce_late):
        # World broadcasts them as bytes. The method is internal to torch, read in 2.9.0 and 2.14.1.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, [*ignored, *unsent])
    parameters = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    options = cast(Mapping[str, Any], {buffers: False, "find_unused_parameters": find_unused})
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **options)
