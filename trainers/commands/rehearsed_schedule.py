"""Rehearses the learning-rate schedule of a phase to its end, without training."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

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
    whole = f"{count:,} {unit}{'s' * (count != 1)}"
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
                    given=type(scheduler).__name__,
                    remedy=f"It must last for {whole}, which is ${{phase.{unit}s}}.")) from error
            if wrong := [rate for rate in rates if not 0 <= rate < math.inf]:
                raise PreflightError(Fault(
                    what=f"the learning rate is {wrong[0]:g} after {number:,} of the phase's {whole}",
                    where=where, given=type(scheduler).__name__, remedy="Check its arguments."))
    if count > MOST:
        return f"only the first {MOST:,} of {whole} of {where} were rehearsed"
    return _misfit(scheduler, count, unit, whole, where)


def _misfit(scheduler: Any, count: int, unit: str, whole: str, where: str) -> str:
    """What of a schedule does not fit the length of its phase although no step fails; '' if all does. A cosine that is
    at its lowest early rises again, and a milestone after the end is never reached."""
    parts = list(getattr(scheduler, "_schedulers", []))
    starts = [0, *getattr(scheduler, "_milestones", [])] if parts else []
    late = [one for one in (*starts, *getattr(scheduler, "milestones", ())) if one >= count > 0]
    if late:
        return f"{where}: milestone {late[0]:,} is not reached in the phase's {whole}"
    for part, start in zip(parts or [scheduler], starts or [0], strict=False):
        length = getattr(part, "T_max", None) if type(part) is CosineAnnealingLR else None
        if length and part is (parts or [scheduler])[-1] and length != count - start:
            then = "and rises again" if length < count - start else "which the phase does not reach"
            return (f"{where}: the cosine is at its lowest after {start + length:,} {unit}s, {then}: the phase has "
                    f"{count:,}, which is ${{phase.{unit}s}}")
    return ""
