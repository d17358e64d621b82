"""Training, written out: phases, and in each of them stop?, save?, load, step, log, evaluate.

Progress is a (phase, step) pair. Everything else, the order of samples, their augmentation, dropout, the schedule,
follows from it, so that resuming is a seek.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.records import FirstStep, Result
from drumbeat.configs.schema import Config
from drumbeat.data.device import on_device
from drumbeat.data.loader import Batch, Fetch, Samples, batches
from drumbeat.data.order import Timetable
from drumbeat.trainers.account import Account, check_left_out, check_skipped
from drumbeat.trainers.build import Sets, build_mixing, build_shares, build_stream
from drumbeat.trainers.checkpoints.manager import Checkpoint, Checkpoints
from drumbeat.trainers.checkpoints.state import load_weights, weights_sha256
from drumbeat.trainers.clock import Clock
from drumbeat.trainers.contact_sheet import mistakes_sheet
from drumbeat.trainers.evaluate import evaluate
from drumbeat.trainers.guards import FiniteCheck, compare_ranks, not_finite
from drumbeat.trainers.phase_runner import Forward, Stage
from drumbeat.trainers.stopping import Agreement
from drumbeat.trainers.tasks import Results, Task
from drumbeat.trainers.tracking import Silent, Tracker, contact_sheet
from drumbeat.trainers.watchdog import Watchdog
from drumbeat.trainers.world import World

End = Literal["finished", "stopped"]


@dataclass
class Meter:
    """Time since the last point of the curves, split into waiting for data and the rest."""

    steps: int = 0
    samples: int = 0
    waited: float = 0.0
    since: float = 0.0

    def restart(self) -> None:
        self.steps, self.samples, self.waited, self.since = 0, 0, 0.0, time.perf_counter()

    def add(self, samples: int, waited: float) -> None:
        """A step is done."""
        self.steps, self.samples, self.waited = self.steps + 1, self.samples + samples, self.waited + waited

    def read(self) -> dict[str, float]:
        """The speed since the last reading, which ends here: what writing it down costs belongs to the next."""
        seconds = max(time.perf_counter() - self.since, 1e-9)
        speed = {"speed/samples_per_second": self.samples / seconds, "speed/step_seconds": seconds / max(1, self.steps),
                 "speed/data_wait_fraction": min(1.0, self.waited / seconds)}
        self.restart()
        return speed


@dataclass(frozen=True)
class PendingStep:
    """A step that the host does not know yet to be taken or skipped."""

    progress: Progress
    """The run's progress before it."""
    batch: Batch
    """Which samples it used, without inputs and targets."""
    loss: Tensor
    """This rank's part of the loss."""
    check: FiniteCheck | None


@dataclass
class Training:
    """A run on this rank: what was built, and how far it has come."""

    config: Config
    world: World
    sets: Sets
    model: nn.Module
    task: Task
    forward: Forward
    checkpoints: Checkpoints
    agreement: Agreement
    tracker: Tracker | Silent
    workers: int
    progress: Progress
    account: Account
    watchdog: Watchdog
    clock: Clock
    checkpoint: Checkpoint | None = None
    """The checkpoint that this attempt resumes from."""
    recent: deque[Tensor] = field(init=False)
    """This rank's parts of the last losses, as many as a point of the training curve is the mean of."""
    pending: PendingStep | None = None
    """The last step, until `_settle`."""
    begun_at: float | None = None
    """When this attempt had taken its first step."""

    def __post_init__(self) -> None:
        self.recent = deque(maxlen=self.config.tracking.mean_of_steps)

    def run(self) -> End:
        """All phases that are left. Ends early, with everything saved, where a stop is asked for."""
        if self.checkpoint is not None:
            load_weights(self.model, self.checkpoint.model(), self.checkpoint.path,
                         str(self.config.model.get("_target_")))
        for number, timetable in enumerate(self.timetables()):
            begun = number == self.progress.phase and self.progress.phase_step > 0
            if number < self.progress.phase or (begun and self.progress.phase_step == timetable.steps):
                continue
            if not begun:
                self._enter(number)
            if self._phase(number, timetable, self.checkpoint if begun else None) == "stopped":
                return "stopped"
        return "finished"

    def timetables(self) -> list[Timetable]:
        """The steps and epoch marks of each phase."""
        return timetables(self.config, len(self.sets.train))

    def _enter(self, number: int) -> None:
        """The weights a phase starts from: the last ones stand in the model already, rank 0's buffers among them."""
        self._share(self.model.buffers())
        self.progress = replace(self.progress, phase=number, phase_step=0)
        phase = list(self.config.phases.values())[number]
        if phase is not None and phase.start_from == "best" and self.progress.best:
            if self.world.is_first:
                self.model.load_state_dict(self.checkpoints.weights(self.progress.best["step"]))
            self._share(self.model.state_dict().values())

    def _phase(self, number: int, timetable: Timetable, resumed: Checkpoint | None) -> End:
        stage = Stage(self.config, number, self.model, self.task, self.world, self.forward)
        every = self.config.checkpoints.every_steps
        meter = Meter()
        self.tracker.status(phase=stage.name, phase_steps=timetable.steps, seconds=self.clock.seconds,
                            steps=sum(table.steps for table in self.timetables()))
        for batch, waited in self._batches(number, timetable, stage, resumed):
            self.clock.spent("waiting")
            self.watchdog.pet(self.progress.step)
            ask = self.agreement.before(self.progress.step)
            if ask.save or ask.stop:
                self._save(stage)
            if ask.stop:
                return "stopped"

            self.checkpoints.check()
            if meter.since == 0.0:
                meter.restart()
            step = self.progress.phase_step
            loss = stage.backward(batch, step)
            self._settle(stage)
            self.pending = PendingStep(self.progress, batch._replace(inputs=None, targets=None), loss, stage.update())
            self.progress = self.progress.advanced(timetable.batch_size)
            meter.add(timetable.batch_size, waited)
            self.recent.append(loss)
            if self.begun_at is None:
                self._begun()
            self.tracker.status(step=self.progress.step, phase_step=self.progress.phase_step)

            if self.progress.step % self.config.compare_ranks_every == 0:
                self._settle(stage)
                compare_ranks(self.model, self.world, self.progress.step)
            if self.progress.step % self.config.tracking.every_steps == 0:
                self._log(stage, meter, timetable)
            self.clock.spent("training")
            if timetable.is_mark(step):
                stage.end_epoch(self._evaluate(stage))
                self._save(stage)
                meter.restart()
            elif every is not None and self.progress.step % every == 0:
                self._save(stage)
        return "finished"

    def _batches(self, number: int, timetable: Timetable, stage: Stage,
                 resumed: Checkpoint | None) -> Iterator[tuple[Batch, float]]:
        """This rank's batches from where the phase stands, each with the seconds it was waited for. The first one also
        serves the discarded pass that `Stage.start` needs."""
        stream = build_stream(self.config, self.sets.train, number)
        fetch = Fetch(self.sets.train, indices=stream.indices, transforms=self.sets.train_transforms,
                      seed=self.config.seed, phase=number, mixing=build_mixing(self.config),
                      skip_unreadable=self.config.data.on_error == "skip")
        shares = build_shares(self.config, self.sets.train, timetable, stream, rank=self.world.rank,
                              world_size=self.world.size, first=self.progress.phase_step)
        source = on_device(batches(fetch, shares, workers=self.workers, pin_memory=self.world.device.type == "cuda"),
                           self.world.device)
        first = next(source)
        tensors = stage.start(first, resumed)
        if self.world.is_first:
            self.checkpoints.lay_out(self.model.state_dict(), tensors)
        self._show_inputs(stage, first)
        self.clock.spent("starting")
        began = time.perf_counter()
        for batch in chain([first], source):
            yield batch, time.perf_counter() - began
            began = time.perf_counter()

    def _begun(self) -> None:
        """This attempt has taken its first step: written down for who asks how long a restart took."""
        self.begun_at = time.time()
        if self.world.is_first:
            FirstStep(resumed_from=self.progress.step - 1, time=self.begun_at).write(self.agreement.attempt.begun,
                                                                                     durable=False)

    def _log(self, stage: Stage, meter: Meter, timetable: Timetable) -> None:
        """A point of the training curves: the mean loss of the last steps' batches, over all ranks. Raises
        `PrepareError` on all of them where too many samples could not be read."""
        self._settle(stage)
        loss = torch.stack([*self.recent]).mean()
        sums = torch.stack([loss.to(torch.float64), torch.tensor(self.account.replaced, dtype=torch.float64,
                                                                 device=loss.device)])
        value, replaced = self.world.sum(sums).tolist()
        check_skipped(self.progress, int(replaced), len(self.sets.train), self.config.data.max_skipped)
        speed = meter.read()
        if self.world.is_first:
            step, steps = self.progress.step, sum(table.steps for table in self.timetables())
            position = self.progress.phase_step * timetable.batch_size
            epoch = min(position, timetable.samples) / timetable.n
            self.tracker.scalars(step, {"train/loss": value, "train/rate": stage.rate, "train/epoch": epoch, **speed})
            self.tracker.status(steps=steps, loss=value, epoch=epoch,
                                samples_per_second=speed["speed/samples_per_second"],
                                eta_seconds=(steps - step) * speed["speed/step_seconds"])

    def _settle(self, stage: Stage) -> None:
        """Finds out whether the last step was taken, and accounts for it. If it was not, saves the state before it and
        raises `NotFiniteError`, or reports it and continues. This waits for the last step, so it is called when the
        device has the next one to compute; and before anything reads the state."""
        last, self.pending = self.pending, None
        if last is None:
            return
        if not stage.settle(last.check):
            error = not_finite(last.progress.step, last.loss, last.batch, self.world.rank)
            if self.config.not_finite == "stop":
                self.progress = last.progress
                self.tracker.status(step=self.progress.step, phase_step=self.progress.phase_step)
                stage.discard()
                self._save(stage)
                self.checkpoints.wait()
                self.world.sum(torch.zeros((), device=self.world.device))  # rank 0 has saved: until then nobody leaves
                raise error
            print(f"skipped    {error}", flush=True)
        self.account.add(last.batch)

    def _evaluate(self, stage: Stage) -> float | None:
        """The validation metrics of the weights as they are; they become the best if they are. Returns the metric that
        decides about that; None where there is no validation set."""
        self._settle(stage)
        samples, judged = self.sets.validation, None
        if samples is not None:
            results = self.results("validation", samples)
            metrics = self.task.metrics(results)
            judged = metrics[self.config.evaluation.best_by]
            stage.train_mode()
            evaluation = {"step": self.progress.step, "phase": stage.name, **metrics}
            best = evaluation if self._better(metrics) else self.progress.best
            self.progress = replace(self.progress, last=evaluation, best=best)
            self.tracker.scalars(self.progress.step, {f"validation/{name}": value for name, value in metrics.items()})
            self.tracker.status(now=True, validation=metrics)
            self._show_mistakes(samples, results)
            if self.world.is_first:
                said = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
                print(f"{stage.name}  step {self.progress.step}  validation  {said}"
                      f"{'  best so far' if best is evaluation else ''}", flush=True)
        self.agreement.look_again(self.progress.step)
        self.clock.spent("evaluating")
        return judged

    def results(self, name: str, samples: Samples) -> Results:
        """All of a set, evaluated with rank 0's buffers: averaging them would change the run."""
        self._share(self.model.buffers())
        results = evaluate(self.model, self.task, samples, list(self.sets.evaluate_transforms), forward=self.forward,
                           world=self.world, batch_size=self.config.evaluation.batch_size, workers=self.workers,
                           skip_unreadable=self.config.data.on_error == "skip",
                           batch_statistics=self.config.evaluation.batch_statistics, heartbeat=self._alive)
        left_out = len(samples) - len(results.losses)
        if (note := check_left_out(name, left_out, len(samples), self.config.data.max_skipped)) and self.world.is_first:
            print(note, flush=True)
        return results

    def _alive(self) -> None:
        """A sign of life from an evaluation."""
        self.watchdog.pet(self.progress.step)
        self.tracker.status()

    def _better(self, metrics: dict[str, float]) -> bool:
        name = self.config.evaluation.best_by
        new, best = metrics[name], self.progress.best.get(name, math.nan)
        better = new > best if self.config.evaluation.best_is == "highest" else new < best
        return not self.progress.best or better or (math.isnan(best) and not math.isnan(new))

    def _save(self, stage: Stage) -> None:
        self._settle(stage)
        self.progress = replace(self.account.close(self.progress, stage.number, self.world),
                                seconds=self.clock.rounded())
        if self.world.is_first and self.progress.step > 0:
            self.tracker.flush()
            self.checkpoints.save(self.progress, self.model.state_dict(), stage.tensors(), stage.numbers())
        check_skipped(self.progress, 0, len(self.sets.train), self.config.data.max_skipped)
        self.agreement.saved()
        self.clock.spent("saving")

    def finish(self) -> Result:
        """What the run came to. The test set is judged with the best weights."""
        digest = weights_sha256(self.model.state_dict())
        test = {}
        if self.sets.test is not None:
            if self.world.is_first and self.progress.best:
                self.model.load_state_dict(self.checkpoints.weights(self.progress.best["step"]))
            self._share(self.model.state_dict().values())
            test = self.task.metrics(self.results("test", self.sets.test))
        self.clock.spent("evaluating")
        return Result(steps=self.progress.step, samples_seen=self.progress.samples,
                      overshoot=sum(table.overshoot for table in self.timetables()),
                      samples_skipped=self.progress.skipped, last=self.progress.last, best=self.progress.best,
                      test=test, weights_sha256=digest)

    def _share(self, tensors: Any) -> None:
        """Rank 0's values of these tensors on every rank."""
        with torch.no_grad():
            for tensor in tensors:
                self.world.from_first(tensor)

    def _show_inputs(self, stage: Stage, batch: Batch) -> None:
        most = self.config.tracking.images
        if self.world.is_first and most and isinstance(batch.inputs, Tensor) and batch.inputs.dim() == 4:
            self.tracker.picture(self.progress.step + 1, f"train/{stage.name}",
                                 contact_sheet(list(self.forward.inputs(batch.inputs[:most]))))

    def _show_mistakes(self, samples: Samples, results: Results) -> None:
        most = self.config.tracking.images
        if not (self.world.is_first and most):
            return
        sheet = mistakes_sheet(self.task, samples, self.sets.evaluate_transforms, results, most=most, columns=4)
        if sheet is not None:
            self.tracker.picture(self.progress.step, "validation/mistakes", sheet)


def timetables(config: Config, n: int) -> list[Timetable]:
    """The steps and epoch marks of each phase on a set of n samples."""
    return [Timetable(n, phase.batch_size or config.batch_size, phase.epochs)
            for phase in config.phases.values() if phase is not None]
