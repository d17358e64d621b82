"""Restores the optimizer and the scheduler of a phase whose config has changed since the checkpoint.

What has changed in the config is taken from the config; everything else is as it was saved. The optimizer of the old
config is built once more to see what has changed: its settings and those of the new one are compared after both
schedules have been advanced to the step that the phase has reached. So a new learning rate, a longer schedule or
another kind of schedule has the effect as if the phase had had it from its beginning, while momentum and second moments
stay.
ReduceLROnPlateau depends on the metrics so far, so its state stays, and a new learning rate applies at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from drumbeat.trainers.checkpoints.codec import restore_object, state_of
from drumbeat.trainers.checkpoints.state import NOT_SAVED, optimizer_parts, restore_training
from drumbeat.trainers.lost_state import differences

Settings = dict[tuple[str, int], dict[str, Any]]
"""The settings of each parameter group, by the path of its optimizer and its number."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The optimizer and the scheduler with which a phase's checkpoint was saved."""

    make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    make_scheduler: Callable[[torch.optim.Optimizer], Any]
    same_schedule: bool
    """Whether the config of the scheduler is the same."""
    same_unit: bool
    """Whether the scheduler is advanced as often: after each step, or each epoch."""
    scheduler_steps: int
    """How often the new scheduler would have been advanced in this phase."""


def restore_changed(earlier: Earlier, parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer,
                    scheduler: Any, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor],
                    saved: Mapping[str, Any]) -> None:
    """Loads a saved state into an optimizer and a scheduler that were just built from another config. Raises what the
    new scheduler raises if it cannot be advanced to where the phase is."""
    old_optimizer = earlier.make_optimizer(list(parameters))
    old_scheduler = earlier.make_scheduler(old_optimizer)
    count = _advanced(saved["scheduler"].get("state")) if _is_counted(old_scheduler) else None
    _advance(scheduler, count if count is not None and earlier.same_unit else earlier.scheduler_steps)
    with suppress(Exception):  # a schedule that was too short
        _advance(old_scheduler, count or 0)
    new, old = _settings(optimizer), _settings(old_optimizer)
    same = earlier.same_schedule and not (_is_counted(scheduler) and [
        *differences(state_of(scheduler), state_of(old_scheduler), "")])
    changes = {} if same else _changed_state(scheduler, old_scheduler)
    restore_training(optimizer, scheduler if same else None, names, tensors, saved)
    if not same and type(scheduler) is type(old_scheduler) and not _is_counted(scheduler):
        restore_object(scheduler, saved["scheduler"]["state"] | changes, tensors)
    _set(optimizer, new, old)


def _is_counted(scheduler: Any) -> bool:
    """Whether a scheduler's learning rate follows from how often it was advanced."""
    return isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau)


def _advanced(state: Any) -> int | None:
    """How often a scheduler was advanced, from its saved state or from that of one inside it; None if it does not
    tell."""
    if isinstance(state, Mapping) and isinstance(state.get("last_epoch"), int):
        return int(state["last_epoch"])
    inner = state.values() if isinstance(state, Mapping) else state if isinstance(state, list) else ()
    return next((count for one in inner if (count := _advanced(one)) is not None), None)


def _advance(scheduler: Any, steps: int) -> None:
    """Advances a scheduler of which nothing but the number of steps decides."""
    if _is_counted(scheduler):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch: the optimizer has not taken a step
            for _ in range(steps):
                scheduler.step()


def _settings(optimizer: torch.optim.Optimizer) -> Settings:
    return {(path, number): {name: value for name, value in group.items() if name not in NOT_SAVED}
            for path, one in optimizer_parts(optimizer).items() for number, group in enumerate(one.param_groups)}


def _set(optimizer: torch.optim.Optimizer, new: Settings, old: Settings) -> None:
    """Gives an optimizer the settings that differ between `new` and `old`."""
    for path, one in optimizer_parts(optimizer).items():
        for number, group in enumerate(one.param_groups):
            mine, before = new.get((path, number), {}), old.get((path, number), {})
            for name in {*mine, *before}:
                if name not in mine:
                    group.pop(name, None)
                elif name not in before or [*differences(mine[name], before[name], "")]:
                    group[name] = mine[name]


def _changed_state(scheduler: Any, old: Any) -> dict[str, Any]:
    """What the config has changed in the state of a scheduler that depends on more than its steps."""
    if scheduler is None or _is_counted(scheduler) or type(scheduler) is not type(old):
        return {}
    before, now = state_of(old), state_of(scheduler)
    return {name: value for name, value in now.items() if name not in before or [
        *differences(value, before[name], "")]}
