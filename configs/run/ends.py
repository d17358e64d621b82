"""When a phase ends before its last epoch, by the monitored metric, and whether a run that has ended would continue.

All of it follows from the config and the progress, so it is the same on all ranks and in all attempts, and commands
know it without torch. How the budget's steps shorten a run: `trainers/position.py`. When its hours are used up is
decided by rank 0 (`trainers/stopping.py`), and recorded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from drumbeat.configs.run.checkpoint_records import EndReason, PhaseEnd, Progress
from drumbeat.configs.schema import Config

SECONDS = 3600.0
"""In an hour."""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """When a phase ends early: the keys of the config, and `monitor` and `mode` of its `evaluation`."""

    monitor: str
    mode: Literal["min", "max"] = "min"
    patience: int | None = None
    min_delta: float = 0.0
    target: float | None = None

    def evaluated(self, progress: Progress, value: float | None) -> Progress:
        """The progress after an evaluation with this value of the monitored metric; None without a validation set. NaN
        is never better."""
        if value is None:
            return progress
        before = progress.plateau
        if not math.isnan(value) and (before is None or self._gain(before, value) > self.min_delta):
            return replace(progress, plateau=value, stale=0)
        return replace(progress, stale=progress.stale + 1)

    def reason(self, progress: Progress) -> EndReason | None:
        """Why the phase ends here; None if it does not."""
        value = progress.last.get(self.monitor) if progress.last.get("step") == progress.step else None
        if self.target is not None and value is not None and self._gain(self.target, value) >= 0:
            return "target"
        return "patience" if self.patience is not None and progress.stale >= self.patience else None

    def text(self, reason: EndReason) -> str:
        """What has ended the phase, for users."""
        if reason == "target":
            return f"{self.monitor} has reached {self.target:g}"
        if reason == "patience":
            return f"{self.monitor} has not been better in {self.patience} evaluation{'s' * (self.patience != 1)}"
        return "the hours of the run are used up"

    def _gain(self, before: float, after: float) -> float:
        """By how much a value is better than another one."""
        return after - before if self.mode == "max" else before - after


def ends_of(config: Config, number: int) -> Ends:
    """When phase `number` ends early."""
    phase, evaluation = list(config.phases.values())[number], config.evaluation
    assert phase is not None
    return Ends(monitor=evaluation.monitor, mode=evaluation.mode, patience=phase.patience, min_delta=phase.min_delta,
                target=phase.target)


def end_of(progress: Progress, phase: int) -> PhaseEnd | None:
    """How a phase has ended early; None if it has not."""
    return next((one for one in progress.ended if one.phase == phase), None)


def reopened(progress: Progress, config: Config) -> Progress:
    """The progress without the early end of its phase, if this config does not end it there."""
    end = end_of(progress, progress.phase)
    if end is None or (_hours_used(config, progress) if end.reason == "hours"
                       else ends_of(config, progress.phase).reason(progress)):
        return progress
    return replace(progress, ended=tuple(one for one in progress.ended if one is not end))


def _hours_used(config: Config, progress: Progress) -> bool:
    """Whether less than a second is left: the checkpoint was saved at about the time when they were used up."""
    hours = config.budget.hours
    return hours is not None and sum(progress.seconds.values()) + 1 >= SECONDS * hours


def ended_between(config: Config, progress: Progress) -> bool:
    """Whether a run that has finished with this config has not begun its next phase, because its hours were used up
    when a phase was complete."""
    used = config.budget.steps
    return (config.budget.hours is not None and progress.phase + 1 < len(config.phases)
            and (used is None or progress.step < used))


def continues(before: Config, after: Config, progress: Progress | None) -> bool:
    """Whether a run that has finished with the config `before` has something to train with the config `after`: another
    phase, more epochs in the last one, or no longer what has ended it early."""
    used, left = before.budget.steps, after.budget.steps
    if progress and left is not None and progress.step >= left:
        return False
    if progress and used is not None and progress.step >= used:
        return True
    end = end_of(progress, progress.phase) if progress else None
    if progress and end and (end.reason == "hours" or reopened(progress, after) is not progress):
        return reopened(progress, after) is not progress
    if progress and ended_between(before, progress):
        return not _hours_used(after, progress)
    if progress and end:
        return len(after.phases) > progress.phase + 1
    *_, last = before.phases
    old, new = (phase.epochs if (phase := config.phases.get(last)) else 0.0 for config in (before, after))
    return len(after.phases) > len(before.phases) or new > old

