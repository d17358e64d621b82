"""What a run writes down while it trains: its first step, points of the training curves, and a batch of inputs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.records import FirstStep
from drumbeat.data.loader import Batch
from drumbeat.data.order import Schedule
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.tracking import NullTracker, Tracker, contact_sheet
from drumbeat.trainers.world import World


@dataclass
class Meter:
    """Time since the last point of the curves, split into waiting for data and the rest."""

    steps: int = 0
    samples: int = 0
    waited: float = 0.0
    """Seconds in which the rank waited for batches."""
    since: float = field(default_factory=time.perf_counter)

    def restart(self) -> None:
        self.steps, self.samples, self.waited, self.since = 0, 0, 0.0, time.perf_counter()

    def add(self, samples: int, waited: float) -> None:
        """Counts a step."""
        self.steps, self.samples, self.waited = self.steps + 1, self.samples + samples, self.waited + waited

    def read(self) -> dict[str, float]:
        """The speed since the last reading, which ends here: what writing it down costs belongs to the next."""
        seconds = max(time.perf_counter() - self.since, 1e-9)
        speed = {"speed/samples_per_second": self.samples / seconds, "speed/step_seconds": seconds / max(1, self.steps),
                 "speed/data_wait_fraction": min(1.0, self.waited / seconds)}
        self.restart()
        return speed


class TrainingLog:
    """The training curves and the heartbeat of a run. Rank 0 writes them; the losses of all ranks go into them."""

    def __init__(self, *, world: World, tracker: Tracker | NullTracker, total_steps: int, smoothing_steps: int,
                 first_step_file: Path, forward: Forward, images: int,
                 check_skipped: Callable[[Progress, int], None]) -> None:
        """`smoothing_steps` is how many steps a point of the curve is the mean of, and `images` how many inputs are
        shown at most. `check_skipped` is that of `saving.Saver`."""
        self.world = world
        self.tracker = tracker
        self.total_steps = total_steps
        self.first_step_file = first_step_file
        self.forward = forward
        self.images = images
        self.check_skipped = check_skipped
        self.meter = Meter()
        self.recent: deque[Tensor] = deque(maxlen=smoothing_steps)
        """This rank's parts of the last losses."""
        self.has_begun = False

    def start_phase(self, name: str, schedule: Schedule, seconds: dict[str, float]) -> None:
        """`seconds` are those of the run's clock."""
        self.tracker.status(phase=name, phase_steps=schedule.steps, seconds=seconds, steps=self.total_steps)

    def step(self, progress: Progress, loss: Tensor, *, samples: int, waited: float) -> None:
        """A step on so many samples, over all ranks, for whose batch this rank has waited so many seconds."""
        self.meter.add(samples, waited)
        self.recent.append(loss)
        if not self.has_begun and self.world.is_main:  # from this file one reads how long a restart took
            FirstStep(resumed_from=progress.step - 1, time=time.time()).write(self.first_step_file, durable=False)
        self.has_begun = True
        self.tracker.status(step=progress.step, phase_step=progress.phase_step)

    def point(self, progress: Progress, schedule: Schedule, *, lr: float, replaced: int) -> None:
        """A point of the training curves: the mean loss of the last steps' batches, over all ranks. `replaced` counts
        this rank's samples that could not be read since the last checkpoint. Raises `PreflightError` on all ranks where
        they are too many in total."""
        loss = torch.stack([*self.recent]).mean()
        sums = torch.stack([loss.to(torch.float64), torch.tensor(replaced, dtype=torch.float64, device=loss.device)])
        value, total_replaced = self.world.all_reduce(sums).tolist()
        self.check_skipped(progress, int(total_replaced))
        speed = self.meter.read()
        if self.world.is_main:
            position = progress.phase_step * schedule.batch_size
            epoch = min(position, schedule.samples) / schedule.n
            self.tracker.scalars(progress.step, {"train/loss": value, "train/lr": lr, "train/epoch": epoch, **speed})
            self.tracker.status(steps=self.total_steps, loss=value, epoch=epoch,
                                samples_per_second=speed["speed/samples_per_second"],
                                eta_seconds=(self.total_steps - progress.step) * speed["speed/step_seconds"])

    def inputs(self, progress: Progress, phase: str, batch: Batch) -> None:
        """Shows a batch as it enters the model, if it holds images."""
        if self.world.is_main and self.images and isinstance(batch.inputs, Tensor) and batch.inputs.dim() == 4:
            self.tracker.picture(progress.step + 1, f"train/{phase}",
                                 contact_sheet(list(self.forward.inputs(batch.inputs[:self.images]))))
