"""Rehearses the learning-rate schedule of a phase to its end, without training."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.data.schedule import Schedule

MOST = 50_000
"""The number of steps that are rehearsed, about a second; a step of torch's schedulers takes 5 to 20 us."""


def rehearse_schedule(scheduler: Any, optimizer: torch.optim.Optimizer, schedule: Schedule,
                      every: Literal["step", "epoch"], where: str) -> str:
    """Steps a scheduler as often as the phase does. Returns what was not rehearsed; '' for nothing. Raises
    `PreflightError` if a step fails, or if a learning rate is not a number from 0 on."""
    if scheduler is None:
        return ""
    plateau = isinstance(scheduler, ReduceLROnPlateau)
    unit = "epoch" if plateau or every == "epoch" else "step"
    count = schedule.steps if unit == "step" else math.ceil(schedule.epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch: the optimizer has not taken a step
        for number in range(1, min(count, MOST) + 1):
            try:
                scheduler.step(0.0) if plateau else scheduler.step()
                rates = [float(group["lr"]) for group in optimizer.param_groups]
            except Exception as error:
                text = next(iter(str(error).splitlines()), "") or type(error).__name__
                raise PreflightError(Fault(
                    what=f"the scheduler fails at {unit} {number:,} of the phase's {count:,}: {text}", where=where,
                    given=type(scheduler).__name__, remedy=f"It must last for {count:,} {unit}s.")) from error
            if wrong := [rate for rate in rates if not 0 <= rate < math.inf]:
                raise PreflightError(Fault(
                    what=f"the learning rate is {wrong[0]:g} after {number:,} of the phase's {count:,} {unit}s",
                    where=where, given=type(scheduler).__name__, remedy="Check its arguments."))
    return f"only the first {MOST:,} of {count:,} {unit}s of {where} were rehearsed" if count > MOST else ""
