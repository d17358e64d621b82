"""Checks of an optimizer and its scheduler before a run: what they do that the loop or the config would not expect."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.schema import Phase
from drumbeat.trainers.averaging import switchable
from drumbeat.trainers.build_optimizer import build_average
from drumbeat.trainers.several_optimizers import parts_of_step


def check_optimizer(optimizer: torch.optim.Optimizer, name: str) -> None:
    """Raises `PreflightError` if a step of the optimizer of phase `name` needs a closure that computes the loss again,
    as LBFGS and SAM do. The gradient of a step is averaged over the ranks and checked once."""
    for one in parts_of_step(optimizer):
        closure = inspect.signature(type(one).step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            kind = type(one)
            raise PreflightError(Fault(
                what=f"{kind.__name__} needs several evaluations in each step, which is not supported",
                where=f"phases.{name}.optimizer", given=f"{kind.__module__}.{kind.__qualname__}.step(closure)",
                remedy="Use an optimizer that needs one gradient in each step."))


def check_average(phase: Phase, name: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raises `PreflightError` if the average of the weights of phase `name` cannot be built, or if the optimizer has
    one of its own."""
    if build_average(phase, name, model) is not None and (own := switchable(optimizer)):
        raise PreflightError(Fault(
            what=f"{type(own[0]).__name__} averages the weights itself", where=f"phases.{name}.average",
            given=str(phase.average["_target_"]), remedy="Remove average, or use another optimizer."))


def rates_of(optimizer: torch.optim.Optimizer) -> list[float]:
    """The learning rate of each parameter group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def check_rates(before: Sequence[float], after: Sequence[float], scheduler: Any, name: str) -> None:
    """Raises `PreflightError` if the scheduler gives the same learning rate to groups that have their own: OneCycleLR
    and CyclicLR replace them by `max_lr`."""
    if len({*before}) > 1 and len({*after}) == 1:
        raise PreflightError(Fault(
            what=f"{type(scheduler).__name__} gives all parameter groups one learning rate, and the config gives them "
                 f"{len({*before})}", where=f"phases.{name}.scheduler",
            given=f"from {min(before):g} to {max(before):g} without it, {after[0]:g} with it",
            remedy="Use a scheduler that multiplies the rates, such as LinearLR and CosineAnnealingLR in a "
                   f"SequentialLR; or give it a list, one value for each of the {len(before)} groups."))
