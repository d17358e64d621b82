"""Evaluation of the validation set while a run trains, and of the test set at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.text_fields import metric_fields, wrapped
from drumbeat.data.loader import Samples, one_thread
from drumbeat.trainers.build import Sets
from drumbeat.trainers.contact_sheet import worst_samples_sheet
from drumbeat.trainers.evaluate import evaluate
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.metrics import no_metric
from drumbeat.trainers.model_and_task import on_host
from drumbeat.trainers.sample_counts import check_unreadable
from drumbeat.trainers.tasks import Results, Task
from drumbeat.trainers.tracking import NullTracker, Tracker
from drumbeat.trainers.world import World


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Evaluates the sets of a run. All ranks take part in each evaluation."""

    model: nn.Module
    task: Task
    sets: Sets
    forward: Forward
    world: World
    tracker: Tracker | NullTracker
    batch_size: int
    workers: int
    batch_statistics: bool
    """Whether BatchNorm uses the statistics of each batch: see `evaluate.evaluation_mode`."""
    skip_unreadable: bool
    max_skipped: float
    """The largest fraction of a set that may be left out because it cannot be read."""
    monitor: str
    """The validation metric that decides which weights are the best."""
    mode: Literal["min", "max"]
    keep_best: int = 1
    """How many of the best evaluations the progress holds."""
    images: int
    """The largest number of samples on the sheet of worst samples."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Those of `evaluation.metrics`."""
    heartbeat: Callable[[], None] = lambda: None
    """Called after each batch."""

    def validate(self, progress: Progress, phase: str, train_loss: float) -> tuple[Progress, float | None]:
        """Evaluates the weights as they are, and prints the metrics beside `train_loss`, the mean training loss.
        Returns the progress with these metrics, which are also its best ones if they are better, and the monitored
        metric; None without a validation set."""
        samples = self.sets.validation
        if samples is None:
            return progress, None
        return self.record(progress, phase, train_loss, samples, self.results("validation", samples))

    def record(self, progress: Progress, phase: str, train_loss: float, samples: Samples,
               results: Results | None) -> tuple[Progress, float]:
        """Records and prints the metrics of the validation set; see `validate`. Weights before the first step, which
        are not saved, are not the best ones."""
        metrics = self._metrics(results)
        evaluation = {"step": progress.step, "phase": phase, **metrics}
        best = evaluation if progress.step and self._is_better(metrics, progress.best) else progress.best
        self.tracker.scalars(progress.step, {f"validation/{name}": value for name, value in metrics.items()})
        self.tracker.status(now=True, validation=metrics, monitor=self.monitor, best=best.get(self.monitor))
        if results is not None:
            self._show_worst_samples(progress.step, samples, results)
            first, *others = metric_fields(metrics, self.monitor)
            print(wrapped([phase, f"step {progress.step:,}", "validation",
                           f"{first} (best so far)" if best is evaluation else first, *others,
                           *([f"train loss {train_loss:.4f}"] if progress.step else [])]), flush=True)
        return replace(progress, last=evaluation, best=best, top=self._top(progress, metrics[self.monitor])), metrics[
            self.monitor]

    def _top(self, progress: Progress, value: float) -> tuple[dict[str, float], ...]:
        """The best evaluations so far, with this one if it is among them. Earlier ones come first among equals, and NaN
        comes last."""
        sign = -1 if self.mode == "max" else 1
        found = [*progress.top, *([{"step": progress.step, "value": value}] if progress.step else [])]
        ranked = sorted(found, key=lambda one: (nan := math.isnan(one["value"]), 0 if nan else sign * one["value"]))
        return tuple(ranked[:self.keep_best]) if self.keep_best > 1 else ()

    def test(self) -> dict[str, float]:
        """The metrics of the test set; empty if there is none."""
        return {} if self.sets.test is None else self._metrics(self.results("test", self.sets.test))

    def _metrics(self, results: Results | None) -> dict[str, float]:
        """The metrics of rank 0's results, on every rank: the task's, those of `evaluation.metrics`, and the monitored
        one. Raises `PreflightError` if there is no metric of its name."""
        found = {}
        if results is not None:
            task = on_host(self.task)
            # A task that counts returns integers.
            own = {name: float(value) for name, value in task.metrics(results).items()}
            found = {**results.terms, **own, **results.metrics}
            if self.monitor not in found:
                found[self.monitor] = self._measured(task, results, found)
        shared: dict[str, float] = self.world.share(found)
        return shared

    def _measured(self, task: Task, results: Results, found: Mapping[str, float]) -> float:
        """The monitored metric, if it is one of those that `drumbeat evaluate` computes."""
        from drumbeat.trainers.tasks.measure import measure  # seconds to import

        with one_thread():
            measured = measure(task, results).metrics
        if self.monitor not in measured:
            raise PreflightError(no_metric(self.monitor, [*found, *measured]))
        value = measured[self.monitor]
        return math.nan if value is None else value

    def results(self, name: str, samples: Samples) -> Results | None:
        """Evaluates a set with rank 0's buffers on all ranks. They are not averaged, which would change the training.
        Returns the results on rank 0. Raises `PreflightError` if too many samples cannot be read."""
        self.world.broadcast_each(self.model.buffers())
        results = evaluate(self.model, self.task, samples, list(self.sets.evaluate_transforms), forward=self.forward,
                           world=self.world, batch_size=self.batch_size, workers=self.workers,
                           skip_unreadable=self.skip_unreadable, batch_statistics=self.batch_statistics,
                           collate=self.sets.collate, name=f"data.{name}", metrics=self.metrics, draws=self.images,
                           heartbeat=self.heartbeat)
        left_out = self.world.share(len(samples) - len(results.losses) if results is not None else 0)
        if (note := check_unreadable(name, left_out, len(samples), self.max_skipped)) and self.world.is_main:
            print(note, flush=True)
        return results

    def _is_better(self, metrics: dict[str, float], best_so_far: dict[str, float]) -> bool:
        new, best = metrics[self.monitor], best_so_far.get(self.monitor, math.nan)
        better = new > best if self.mode == "max" else new < best
        return not best_so_far or better or (math.isnan(best) and not math.isnan(new))

    def _show_worst_samples(self, step: int, samples: Samples, results: Results) -> None:
        if self.images and (sheet := worst_samples_sheet(on_host(self.task), samples, self.sets.evaluate_transforms,
                                                         results, most=self.images, columns=4,
                                                         collate=self.sets.collate,
                                                         workers=self.workers)) is not None:
            self.tracker.picture(step, "validation/worst_samples", sheet)
