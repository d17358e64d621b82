"""The training loop, written out: load, stop?, step, log, evaluate, save.

Progress is a (phase, step) pair. The order of samples, their augmentation, dropout and the schedule follow from it, so
a resumed run only has to start reading at another step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from torch import Tensor, nn

from drumbeat.configs.run.checkpoint_records import EndReason, PhaseEnd, Progress
from drumbeat.configs.run.ends import Ends, end_of
from drumbeat.configs.run.records import Result
from drumbeat.data.device import on_device
from drumbeat.data.loader import Batch
from drumbeat.data.schedule import Schedule
from drumbeat.trainers.checkpoints.manager import Checkpoint, Checkpoints
from drumbeat.trainers.checkpoints.state import load_weights, weights_sha256
from drumbeat.trainers.guards import compare_ranks
from drumbeat.trainers.marks import Mark, Marks
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.profiling import Profiling
from drumbeat.trainers.saving import Saver
from drumbeat.trainers.stopping import StopCoordinator
from drumbeat.trainers.stragglers import Stragglers
from drumbeat.trainers.time_spent import TimeSpent
from drumbeat.trainers.training_log import TrainingLog
from drumbeat.trainers.validation import Evaluator
from drumbeat.trainers.watchdog import Watchdog
from drumbeat.trainers.world import World

End = Literal["finished", "stopped"]
NOTHING = nullcontext()


@dataclass(frozen=True, kw_only=True)
class TrainingPhase:
    """One phase of the loop. Its objects are built when the phase starts."""

    schedule: Schedule
    marks: Marks
    ends: Ends
    start_from: Literal["last", "best"]
    make_runner: Callable[[], PhaseRunner]
    make_batches: Callable[[int], Iterable[Batch]]
    """Takes the number of a step in the phase. Returns this rank's parts of each step from there on, on the host."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A run on this rank."""

    world: World
    model: nn.Module
    architecture: str
    """The model's name in the config, for errors."""
    phases: list[TrainingPhase]
    plan: Callable[[Progress], Sequence[TrainingPhase]]
    """The phases as they follow from the progress. One that has ended early leaves more of a budget to the next."""
    saver: Saver
    evaluator: Evaluator
    log: TrainingLog
    stragglers: Stragglers
    coordinator: StopCoordinator
    checkpoints: Checkpoints
    watchdog: Watchdog
    time_spent: TimeSpent
    log_every_steps: int
    desync_check_steps: int
    evaluate_at_start: bool = False
    compute: Callable[[PhaseRunner, Sequence[Batch], int], Tensor] = (
        lambda runner, parts, step: runner.backward(parts, step))
    """Computes the gradients of a step; a replay looks at one of them."""
    checkpoint: Checkpoint | None = None
    """The checkpoint that this attempt resumes from."""

    @property
    def progress(self) -> Progress:
        """The progress of the run."""
        return self.saver.progress

    def run(self) -> End:
        """Trains all remaining phases, or until the run's hours are used up. Returns early, after a save, if a stop is
        requested."""
        if self.checkpoint is not None:
            load_weights(self.model, self.checkpoint.model(), self.checkpoint.path, self.architecture)
        for number, phase in enumerate(self.phases):
            begun = number == self.progress.phase and self.progress.phase_step > 0
            if number < self.progress.phase or (begun and self.progress.phase_step == phase.schedule.steps):
                continue
            if not begun and self.progress.step > 0 and self.coordinator.hours_are_used_up():
                break
            if not begun:
                self._start_phase(number)
            if self._train(phase, self.checkpoint if begun else None) == "stopped":
                return "stopped"
            if end_of(self.progress, number):
                self.phases[number:] = self.plan(self.progress)[number:]
                self.log.resize(sum(one.schedule.steps for one in self.phases))
            if self.progress.step == self.coordinator.stop_at:
                return "stopped"
        return "finished"

    def _train(self, phase: TrainingPhase, resumed: Checkpoint | None) -> End:
        runner, saver, schedule = phase.make_runner(), self.saver, phase.schedule
        mark = phase.marks.next(self.progress)
        self.log.start_phase(runner.name, schedule, self.time_spent.seconds)
        for parts, waited in self._load(phase, runner, resumed):
            self.time_spent.add("waiting")
            self.watchdog.pet(self.progress.step)
            request = self.coordinator.before(self.progress.step)
            ends = request.end and self.progress.step > saver.saved_step  # no checkpoint is written twice
            if request.stop or (request.save and not ends):
                saver.save(runner)
            if request.stop:
                return "stopped"
            if ends:
                self._reach(phase, runner, Mark(step=self.progress.phase_step, evaluate=True), reason="hours")
                break
            if request.exchange:
                self.stragglers.exchange(runner.times.read(), self.progress.step)
            if request.profile:
                Profiling(request.profile, runner, self.coordinator.attempt, self.progress.step).start()

            self.checkpoints.check()
            phase_step = self.progress.phase_step
            runner.times.waited = waited
            with self.log.keeping() if (self.progress.step + 1) % self.log_every_steps == 0 else NOTHING:
                loss = self.compute(runner, parts, phase_step)
            saver.settle(runner)  # the previous step, now that the device has this one to compute
            saver.take(runner, parts, loss)
            step = self.progress.step
            self.log.step(self.progress, loss, samples=schedule.batch_size, waited=waited)

            if step % self.desync_check_steps == 0:
                saver.settle(runner)
                compare_ranks(self.model, self.world, step)
            if step % self.log_every_steps == 0:
                saver.settle(runner)
                self.log.point(self.progress, schedule, rates=dict(zip(runner.curves, runner.rates, strict=True)),
                               replaced=saver.counts.count_replaced())
                saver.steps.flush()
            self.time_spent.add("training")

            if self.progress.phase_step == mark.step:
                if self._reach(phase, runner, mark):
                    break
                mark = phase.marks.next(self.progress)
        else:
            raise RuntimeError(f"the data ended after {self.progress.phase_step:,} of {schedule.steps:,} steps of "
                               f"phase {runner.name}")
        runner.averaging.finish()
        runner.times.close()
        return "finished"

    def _reach(self, phase: TrainingPhase, runner: PhaseRunner, mark: Mark, reason: EndReason | None = None) -> bool:
        """Does what is due at a mark. Returns whether the phase ends there: because it is complete, by its metric, or
        for a given reason."""
        saver, monitored = self.saver, None
        saver.settle(runner)
        if mark.evaluate and self.progress.last.get("step") != self.progress.step:
            monitored = self._validate(runner)
            saver.progress = phase.ends.evaluated(self.progress, monitored)
        runner.at_mark(epoch=mark.epoch, monitored=monitored)
        complete = mark.step == phase.schedule.steps
        reason = reason or (None if complete else phase.ends.reason(self.progress))
        if reason:
            text = f"phase {runner.name} ended after {mark.step:,} steps: {phase.ends.text(reason)}"
            end = PhaseEnd(phase=runner.number, steps=mark.step, reason=reason, text=text)
            saver.progress = replace(self.progress, ended=(*self.progress.ended, end))
            if self.world.is_main:
                print(text, flush=True)
        if mark.keep:
            saver.progress = replace(self.progress, kept=(*self.progress.kept, self.progress.step))
        if mark.save or mark.keep or complete or reason or self.progress.is_among_best:
            saver.save(runner)
        self.log.meter.restart()
        return complete or reason is not None

    def _start_phase(self, number: int) -> None:
        """Starts a phase from the best weights if it says so; otherwise from the model's weights and rank 0's
        buffers."""
        self.world.broadcast_each(self.model.buffers())
        self.saver.progress = self.progress.begun(number)
        if self.phases[number].start_from == "best" and self.progress.best:
            self._load_best()

    def _load(self, phase: TrainingPhase, runner: PhaseRunner, resumed: Checkpoint | None
              ) -> Iterator[tuple[Sequence[Batch], float]]:
        """This rank's parts of the remaining steps of the phase, with the seconds that it waited for those of a step.
        The first ones are also used for the discarded pass of `PhaseRunner.start`."""
        parts = on_device(phase.make_batches(self.progress.phase_step), self.world.device)
        source = zip(*[parts] * len(runner.gradients.division.own), strict=False)
        first = next(source)
        tensors = runner.start(first, resumed)
        if self.world.is_main:
            self.checkpoints.lay_out(self.model.state_dict(), tensors)
        self.log.inputs(self.progress, runner.name, first[0])
        self.time_spent.add("starting")
        if self.evaluate_at_start and self.progress.step == 0:
            self._validate(runner)
        self.log.meter.restart()
        began = time.perf_counter()
        for one in chain([first], source):
            yield one, time.perf_counter() - began
            began = time.perf_counter()

    def _validate(self, runner: PhaseRunner) -> float | None:
        """Evaluates the validation set. Returns the monitored metric."""
        with runner.averaging.averaged():
            self.saver.progress, monitored = self.evaluator.validate(self.progress, runner.name,
                                                                     self.log.pop_mean_loss())
        runner.train_mode()
        self.coordinator.check_before(self.progress.step, evaluated=True)
        self.time_spent.add("evaluating")
        return monitored

    def _load_best(self) -> None:
        """Loads the best weights of the run into the model, on all ranks."""
        if self.world.is_main and self.progress.best:
            self.model.load_state_dict(self.checkpoints.weights(self.progress.best["step"]))
        self.world.broadcast_model(self.model)

    def finish(self) -> Result:
        """Evaluates the test set with the best weights. Returns the result of the run."""
        digest = weights_sha256(self.model.state_dict())
        if self.evaluator.sets.test is not None:
            self._load_best()
        elif self.world.is_main and self.progress.best:
            self.checkpoints.check_best(self.progress.best["step"])
        test = self.evaluator.test()
        self.time_spent.add("evaluating")
        return Result(steps=self.progress.step, samples_seen=self.progress.samples,
                      overshoot=self._overshoot(), changes=self.progress.changes, ended=self.progress.ended,
                      samples_skipped=self.progress.skipped, steps_skipped=self.progress.steps_skipped,
                      last=self.progress.last, best=self.progress.best,
                      test=test, weights_sha256=digest)

    def _overshoot(self) -> int:
        """Samples that the run has read past the ends of its phases."""
        return sum(phase.schedule.overshoot for phase in self.phases[:self.progress.phase + 1])
