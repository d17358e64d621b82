"""Modules whose activations are computed again in the backward pass instead of being kept: gradient checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from drumbeat.trainers.patterns import select

Place = tuple[dict[str, Tensor | None], str]


def recompute(model: nn.Module, chosen: Sequence[Any]) -> None:
    """Lets the chosen modules of a model keep nothing but their inputs for the backward pass; see `recomputed` and
    torch.utils.checkpoint. It may be called again."""
    for module in recomputed(model, chosen):
        if "forward" not in vars(module):
            module.forward = partial(_call, module, module.forward)  # type: ignore[method-assign]


def recomputed(model: nn.Module, chosen: Sequence[Any]) -> list[nn.Module]:
    """The modules that a list of patterns and types selects: the outermost ones of those within each other, and of a
    list of modules, which has no forward pass of its own, each. Raises `PreflightError` for a pattern or a type that
    selects nothing."""
    found = [inner for module in select(model, chosen, "recompute").modules for inner in _called(module)]
    inside = {inner for module in found for inner in module.modules() if inner is not module}
    return [module for module in dict.fromkeys(found) if module not in inside]


def _called(module: nn.Module) -> Iterator[nn.Module]:
    if type(module).forward is nn.Module.forward:
        for child in module.children():
            yield from _called(child)
    else:
        yield module


def _call(module: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    """The forward pass of a module. The second one has the random numbers and the buffers of the first one, and leaves
    no trace: the statistics of BatchNorm are updated once."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    before = [((one._buffers, name), value.detach().clone()) for one in module.modules()
              for name, value in one._buffers.items() if value is not None]
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _with(before)), **named)


@contextmanager
def _with(values: Sequence[tuple[Place, Tensor]]) -> Iterator[None]:
    """Other tensors are the buffers meanwhile."""
    now = [buffers[name] for (buffers, name), _ in values]
    for (buffers, name), other in values:
        buffers[name] = other
    try:
        yield
    finally:
        for ((buffers, name), _), value in zip(values, now, strict=True):
            buffers[name] = value
