"""After which steps of a phase there is more to do than to train: evaluate, save, advance the schedule, end.

The loop compares the number of each step with that of the next mark, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.data.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is due after a step."""

    step: int
    """Steps taken in the phase."""
    epoch: bool = False
    """An epoch of the training set is complete."""
    evaluate: bool = False
    save: bool = False
    keep: bool = False
    """The checkpoint is kept for good."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The marks of a phase. Intervals in epochs begin with the phase, those in steps with the run; None is never."""

    schedule: Schedule
    evaluate_epochs: float = 1.0
    evaluate_steps: int | None = None
    save_steps: int | None = None
    keep_epochs: float | None = None

    def next(self, progress: Progress) -> Mark:
        """The first mark after the progress, which is in the phase and not at its end."""
        step, before = progress.phase_step, progress.step - progress.phase_step
        end = self.schedule.steps

        def in_epochs(every: float | None) -> int:
            return end + 1 if every is None else self.schedule.next_mark(step, every)

        def in_steps(every: int | None) -> int:
            return end + 1 if every is None else (progress.step // every + 1) * every - before

        epoch = in_epochs(1)
        evaluate = min(in_epochs(self.evaluate_epochs), in_steps(self.evaluate_steps))
        save, keep = in_steps(self.save_steps), in_epochs(self.keep_epochs)
        first = min(epoch, evaluate, save, keep)
        whole = self.schedule.epochs_after(first) > self.schedule.epochs_after(step)
        return Mark(step=first, epoch=whole, evaluate=evaluate == first, save=save == first, keep=keep == first)
