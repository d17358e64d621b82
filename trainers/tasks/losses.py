"""The losses of single samples, their mean, and the shapes of outputs and targets."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES: Mapping[Any, Any] = {functional.cross_entropy: nn.CrossEntropyLoss, functional.nll_loss: nn.NLLLoss}
"""By function of torch, the class that tells its weights and which target it ignores, and whose tensors move to the
device."""


def per_sample(loss: Any) -> Any:
    """The loss, set to return one value for each sample; the training step scales by the global batch size. It is an
    object with torch's attribute `reduction`, or a function with this argument, whose argument `ignore_index` becomes
    an attribute. Raises `ValueError`."""
    if isinstance(loss, partial) and loss.func in CLASSES:
        loss = CLASSES[loss.func](**loss.keywords)
    elif isinstance(loss, partial) and "reduction" in (arguments := _arguments(loss)):
        function: Any = partial(loss, reduction="none")
        if "ignore_index" in arguments:
            function.ignore_index = arguments["ignore_index"].default
        return function
    if not hasattr(loss, "reduction"):
        name = getattr(loss.func, "__name__", "") if isinstance(loss, partial) else type(loss).__name__
        raise ValueError(f"the loss {name} has no attribute or argument `reduction`, as torch's losses do; "
                         "it must return one value for each sample for reduction=\"none\", or give a task of your own "
                         "a `batch_loss` (docs/structures.md)")
    loss.reduction = "none"
    return loss


def _arguments(function: partial[Any]) -> Mapping[str, inspect.Parameter]:
    """The arguments of a function by name, with those that are given as defaults."""
    try:
        return inspect.signature(function).parameters
    except ValueError:  # a function of C without a signature
        return {}


def summed(losses: Tensor | Mapping[str, Tensor]) -> Tensor:
    """The losses; of several named terms, their sum. Raises `ValueError` if their shapes differ: torch would broadcast
    one to fit."""
    if isinstance(losses, Tensor):
        return losses
    shapes = {name: list(term.shape) for name, term in losses.items()}
    if any(shape != next(iter(shapes.values())) for shape in shapes.values()):
        raise ValueError("the terms of a loss have different shapes: "
                         + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
    return torch.stack([*losses.values()]).sum(0)


def mean(losses: Tensor, weights: Tensor | None = None) -> float:
    """The mean of float32 [n]: the sum over n, or over the sum of the weights (float32 [n]) that the losses already
    include. A float64 that does not depend on the order of summation. NaN for no samples, and if all weights are 0."""
    whole = len(losses) if weights is None else math.fsum(weights.to(torch.float64).numpy())
    return math.fsum(losses.to(torch.float64).numpy()) / whole if whole else math.nan


def known_mean(values: Iterable[float | None]) -> float:
    """The mean of the values that are not None; NaN if there are none."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


def rows(values: Tensor) -> Tensor:
    """[n] or [n, ...] as [n, values]."""
    return values.flatten(1) if values.dim() > 1 else values[:, None]


def matching(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32 [n, values]. Raises `ValueError` if their shapes differ: torch would broadcast one to fit."""
    values, expected = rows(outputs).float(), rows(targets).float()
    if values.shape != expected.shape:
        raise ValueError(f"the model has {values.shape[1]} outputs for each sample, the data has {expected.shape[1]}")
    return values, expected


def one_each(losses: Tensor, outputs: Tensor) -> Tensor:
    """The losses. Raises `ValueError` if they are not one for each sample."""
    if losses.shape != outputs.shape[:1]:
        raise ValueError(f"the loss of outputs {list(outputs.shape)} has the shape {list(losses.shape)}; this task "
                         f"needs one value for each sample")
    return losses
