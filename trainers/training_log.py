"""What a run records while it trains: its first step, the training curves, lines in its log, a batch of inputs."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.records import FirstStep
from drumbeat.configs.text_fields import clock, wrapped
from drumbeat.data.loader import Batch
from drumbeat.data.schedule import Schedule
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.messages import packed, unpacked
from drumbeat.trainers.tasks.logged import Logged, logging, means
from drumbeat.trainers.tracking import NullTracker, Tracker, contact_sheet
from drumbeat.trainers.world import World

SECONDS_BETWEEN_LINES = 15.0
"""The least time between two lines about training in rank 0's log."""
SUMMED_AT_ONCE = 64
"""The number of losses that are added to a sum at a time."""


@dataclass
class Meter:
    """Measures the speed since the last point of the curves, and the time spent waiting for data."""

    steps: int = 0
    samples: int = 0
    waited: float = 0.0
    """Seconds that the rank waited for batches."""
    since: float = field(default_factory=time.perf_counter)

    def restart(self) -> None:
        self.steps, self.samples, self.waited, self.since = 0, 0, 0.0, time.perf_counter()

    def add(self, samples: int, waited: float) -> None:
        """Counts a step."""
        self.steps, self.samples, self.waited = self.steps + 1, self.samples + samples, self.waited + waited

    def read(self) -> dict[str, float]:
        """The speed since the last call. The time for recording it counts for the next one."""
        seconds = max(time.perf_counter() - self.since, 1e-9)
        speed = {"speed/samples_per_second": self.samples / seconds, "speed/step_seconds": seconds / max(1, self.steps),
                 "speed/data_wait_fraction": min(1.0, self.waited / seconds)}
        self.restart()
        return speed


class TrainingLog:
    """The training curves, log lines and heartbeat of a run. Rank 0 writes them; losses are averaged over all ranks."""

    def __init__(self, *, world: World, tracker: Tracker | NullTracker, total_steps: int, smoothing_steps: int,
                 first_step_file: Path, forward: Forward, images: int,
                 check_skipped: Callable[[Progress, int], None],
                 seconds_left: Callable[[], float] = lambda: math.inf) -> None:
        """A point of the curve is the mean loss of the last `smoothing_steps` steps. At most `images` inputs are drawn.
        For `check_skipped` see `saving.Saver`, for `seconds_left` `stopping.StopCoordinator`."""
        self.world = world
        self.tracker = tracker
        self.total_steps = total_steps
        self.first_step_file = first_step_file
        self.forward = forward
        self.images = images
        self.check_skipped = check_skipped
        self.seconds_left = seconds_left
        self.meter = Meter()
        self.recent: deque[Tensor] = deque(maxlen=smoothing_steps)
        """This rank's parts of the last steps' losses."""
        self.unsummed: list[Tensor] = []
        """This rank's parts of the losses that are not in the sum yet."""
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=world.device)
        """The sum of this rank's parts of the losses since the last evaluation."""
        self.summed_steps = 0
        self.has_begun = False
        self.logged = Logged()
        """What is logged in the step of the next point."""
        self.drawn = -1
        """The epoch of the last images that were logged and drawn."""
        self.phase = ""
        self.printed_at = -math.inf
        """When the last line was printed; the first point of a phase always is."""

    def start_phase(self, name: str, schedule: Schedule, seconds: dict[str, float]) -> None:
        """`seconds` are those of `TimeSpent`."""
        self.phase, self.printed_at, self.drawn = name, -math.inf, -1
        self.tracker.status(phase=name, phase_steps=schedule.steps, seconds=seconds, steps=self.total_steps)

    def resize(self, steps: int) -> None:
        """The run has this many steps now, because a phase has ended early."""
        self.total_steps = steps
        self.tracker.status(now=True, steps=steps)

    def step(self, progress: Progress, loss: Tensor, *, samples: int, waited: float) -> None:
        """Records a step on `samples` samples over all ranks, for whose batch this rank waited `waited` seconds."""
        self.meter.add(samples, waited)
        self.recent.append(loss)
        self.unsummed.append(loss)
        if len(self.unsummed) == SUMMED_AT_ONCE:
            self._sum()
        if not self.has_begun and self.world.is_main:  # `drumbeat drill` reads from it how long a restart took
            FirstStep(resumed_from=progress.step - 1, time=time.time()).write(self.first_step_file, durable=False)
        self.has_begun = True
        self.tracker.status(step=progress.step, phase_step=progress.phase_step)

    def point(self, progress: Progress, schedule: Schedule, *, rates: Mapping[str, float], replaced: int) -> None:
        """Makes a point of the training curves. `rates` are the learning rates of the step by curve, and `replaced` the
        number of this rank's samples that could not be read since the last checkpoint. Raises `PreflightError`, on all
        ranks, if there are too many in total."""
        loss = float(torch.stack([*self.recent]).mean())
        sums = torch.tensor([loss, replaced, len(self.logged.parts)], dtype=torch.float64, device=self.world.device)
        value, total_replaced, any_logged = self.world.all_reduce(sums).tolist()
        self.check_skipped(progress, int(total_replaced))
        values = self._logged_values() if any_logged else {}
        speed = self.meter.read()
        if self.world.is_main:
            epoch = min(schedule.start(progress.phase_step), schedule.samples) / schedule.n
            self.tracker.scalars(progress.step, {**{f"train/{name}": one for name, one in values.items()},
                                                 "train/loss": value, **rates, "train/epoch": epoch, **speed})
            self._draw(progress.step, math.ceil(epoch))
            steps_left = self.total_steps - progress.step
            seconds_left = max(0.0, min(steps_left * speed["speed/step_seconds"], self.seconds_left()))
            self.tracker.status(steps=self.total_steps, loss=value, epoch=epoch, eta_seconds=seconds_left,
                                samples_per_second=speed["speed/samples_per_second"])
            if time.monotonic() - self.printed_at >= SECONDS_BETWEEN_LINES:
                self.printed_at = time.monotonic()
                print(wrapped([self.phase, f"step {progress.step:,}/{self.total_steps:,}", f"loss {value:.4f}",
                               f"lr {next(iter(rates.values())):.1e}", f"{speed['speed/samples_per_second']:,.0f}/s",
                               f"{clock(seconds_left)} left"]), flush=True)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keeps what is logged within the context, which is the step of a point (`tasks/logged.py`)."""
        self.logged = Logged()
        with logging(self.logged):
            yield

    def _logged_values(self) -> dict[str, float]:
        """What all ranks have logged in this step, on rank 0."""
        own = {str(part): {name: value.cpu() for name, value in values.items()}
               for part, values in self.logged.parts.items()}
        if not self.world.is_main:
            self.world.send(packed(own))
            return {}
        for rank in range(1, self.world.size):
            own |= unpacked(self.world.receive(rank))
        return means([own[part] for part in sorted(own, key=int)])

    def _draw(self, step: int, epoch: int) -> None:
        """Draws the images that rank 0 has logged, at the first point in each epoch."""
        if self.images and self.logged.images and epoch != self.drawn:
            self.drawn = epoch
            for name, image in self.logged.images.items():
                sheet = contact_sheet([*image[:self.images]] if image.dim() == 4 else [image])
                self.tracker.picture(step, f"train/{name}", sheet)

    def _sum(self) -> None:
        if self.unsummed:
            self.loss_sum += torch.stack(self.unsummed).sum(dtype=torch.float64)
            self.summed_steps += len(self.unsummed)
            self.unsummed = []

    def pop_mean_loss(self) -> float:
        """The mean training loss of all ranks in the steps since the last call, or since this attempt began. All ranks
        call it."""
        self._sum()
        mean = float(self.world.all_reduce(self.loss_sum / max(1, self.summed_steps)))
        self.loss_sum.zero_()
        self.summed_steps = 0
        return mean

    def inputs(self, progress: Progress, phase: str, batch: Batch) -> None:
        """Draws a batch as it enters the model, if it contains images."""
        if self.world.is_main and self.images and isinstance(batch.inputs, Tensor) and batch.inputs.dim() == 4:
            self.tracker.picture(progress.step + 1, f"train/{phase}",
                                 contact_sheet(list(self.forward.inputs(batch.inputs[:self.images]))))
