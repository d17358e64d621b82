"""The progress of a run on this rank: steps taken, the pending step, and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.data.loader import Batch
from drumbeat.trainers.checkpoints.manager import Checkpoints
from drumbeat.trainers.guards import IN_A_ROW, FiniteCheck, NeverFiniteError, all_finite, not_finite
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.sample_counts import SampleCounts
from drumbeat.trainers.step_recorder import StepRecorder
from drumbeat.trainers.stopping import StopCoordinator
from drumbeat.trainers.time_spent import TimeSpent
from drumbeat.trainers.tracking import NullTracker, Tracker
from drumbeat.trainers.world import World


class PendingStep(NamedTuple):
    """A step that the device has taken or skipped; the host does not know yet which."""

    progress: Progress
    """The run's progress before it."""
    parts: Sequence[Batch]
    """Which samples this rank used, without inputs and targets."""
    loss: Tensor
    """This rank's part of the loss."""
    check: FiniteCheck | None
    sample_losses: Sequence[Tensor]
    """See `PhaseRunner`."""


@dataclass(kw_only=True)
class Saver:
    """Keeps the run's progress, and saves it together with the model and the optimizer."""

    progress: Progress
    counts: SampleCounts
    world: World
    model: nn.Module
    checkpoints: Checkpoints
    coordinator: StopCoordinator
    tracker: Tracker | NullTracker
    time_spent: TimeSpent
    steps: StepRecorder
    stops_at_nonfinite: bool
    """Whether a step whose gradient is not finite ends the run; otherwise it is reported and skipped."""
    check_skipped: Callable[[Progress, int], None]
    """Called with the progress and the number of samples that could not be read since the last save. Raises
    `PreflightError` if there are too many."""
    names: Callable[[], Sequence[str]] = tuple
    """The names of the samples of the training set; empty if it has none."""
    skipped_in_a_row: int = 0
    """The number of steps just before this one that were skipped, in this attempt."""
    pending: PendingStep | None = None
    """The last step, until `settle`."""
    saved_step: int = field(init=False)
    """The step of the last checkpoint, or of that from which this attempt resumes."""

    def __post_init__(self) -> None:
        self.saved_step = self.progress.step

    def take(self, runner: PhaseRunner, parts: Sequence[Batch], loss: Tensor) -> None:
        """Updates the weights with the gradients of `PhaseRunner.backward`. The step counts, and is pending."""
        if (found := runner.gradients.micro_batches.found) != self.progress.micro_batch_size:
            self.progress = replace(self.progress, micro_batch_size=found)
            self.tracker.status(micro_batch_size=found)
        self.pending = PendingStep(self.progress, [Batch(None, None, *part[2:]) for part in parts], loss,
                                   runner.update(), runner.gradients.sample_losses)
        self.steps.add(loss, runner.digest_row, runner.gradients.own.take())
        self.progress = self.progress.advanced(runner.batch_size)

    def settle(self, runner: PhaseRunner) -> None:
        """Finds out whether the pending step was taken, and counts its samples. If it was not, saves the state before
        it and raises `NotFiniteError`, or prints a line, counts it as skipped and continues. This waits for the step,
        so it is called when the device has the next one to compute, and before anything reads the state."""
        last, self.pending = self.pending, None
        if last is None:
            return
        if not runner.settle(last.check, self.progress.phase_step):
            self.steps.skip()
            error = not_finite(last.progress.step, last.loss, last.parts, self.world, last.sample_losses, self.names())
            reason, scaler = self._why_not_skip(), runner.gradients.scaler
            if (self.stops_at_nonfinite and scaler is None) or reason:
                self.progress = last.progress
                self.tracker.status(step=self.progress.step, phase_step=self.progress.phase_step)
                runner.discard()
                self.save(runner)
                self.checkpoints.wait()
                self.world.all_reduce(torch.zeros((), device=self.world.device))  # leave after rank 0 has saved
                raise NeverFiniteError(f"{error}; {reason}") if reason else error
            scale = "" if scaler is None else f"; the loss is now scaled by {scaler.get_scale():g}"
            print(f"skipped    {error}{scale}", flush=True)
            self.progress = replace(self.progress, steps_skipped=self.progress.steps_skipped + 1)
            self.skipped_in_a_row += 1
            self.tracker.status(steps_skipped=self.progress.steps_skipped)
        else:
            self.skipped_in_a_row = 0
        self.counts.add(last.parts)

    def _why_not_skip(self) -> str:
        """Why the run cannot continue without the pending step, whose loss or gradient is NaN or Inf; '' if it can. The
        same on all ranks."""
        if self.skipped_in_a_row + 1 >= IN_A_ROW:
            return f"{IN_A_ROW} steps in a row are like this"
        if not all_finite(self.model):
            return "the weights are NaN or Inf already"
        loss = self.progress.last.get("loss")
        return "the loss of the last evaluation is NaN or Inf already" if isinstance(loss, float) and not (
            math.isfinite(loss)) else ""

    def save(self, runner: PhaseRunner) -> None:
        """Writes a checkpoint, unless nothing has been trained yet. All ranks call this."""
        began = time.monotonic()
        self.settle(runner)
        self.steps.flush()
        self.progress = replace(self.counts.close(self.progress, runner.number, self.world),
                                seconds=self.time_spent.rounded())
        if self.world.is_main and self.progress.step > 0:
            self.tracker.flush()
            with runner.averaging.averaged():
                self.checkpoints.save(self.progress, self.model.state_dict(), *runner.state())
        self.saved_step = self.progress.step
        self.check_skipped(self.progress, 0)
        self.coordinator.saved(time.monotonic() - began)
        self.time_spent.add("saving")
