"""Builds the training on this rank from the config. The loop and its parts take plain values instead of a config."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial

from torch import nn

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.ends import SECONDS
from drumbeat.configs.schema import Config
from drumbeat.data.sample_names import sample_names
from drumbeat.trainers.build import Sets, build_forward
from drumbeat.trainers.build_phases import build_phases
from drumbeat.trainers.checkpoints.manager import Checkpoint, Checkpoints
from drumbeat.trainers.evaluate import Few
from drumbeat.trainers.freezing import trainable
from drumbeat.trainers.loop import Training
from drumbeat.trainers.metrics import build_metrics
from drumbeat.trainers.micro_batches import MicroBatches
from drumbeat.trainers.sample_counts import SampleCounts, check_skipped
from drumbeat.trainers.saving import Saver
from drumbeat.trainers.step_recorder import StepRecorder
from drumbeat.trainers.stopping import StopCoordinator
from drumbeat.trainers.stragglers import Stragglers
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.time_spent import TimeSpent
from drumbeat.trainers.tracking import NullTracker, Tracker
from drumbeat.trainers.training_log import TrainingLog
from drumbeat.trainers.validation import Evaluator
from drumbeat.trainers.watchdog import Watchdog
from drumbeat.trainers.world import World


def build_training(config: Config, sets: Sets, world: World, model: nn.Module, task: Task, *, attempt: Attempt,
                   checkpoints: Checkpoints, checkpoint: Checkpoint | None, progress: Progress,
                   tracker: Tracker | NullTracker, time_spent: TimeSpent, watchdog: Watchdog, workers: int,
                   stop_at: int | None = None) -> Training:
    """The training, which resumes from `checkpoint` if there is one, and stops after step `stop_at`. Raises
    `PreflightError`."""
    forward = build_forward(config, world.device)
    if config.limit_batches is not None:
        most = config.limit_batches * config.evaluation.batch_size
        sets = replace(sets, validation=sets.validation and Few(sets.validation, most),
                       test=sets.test and Few(sets.test, most))
    micro_batches = MicroBatches(config.micro_batch_size, world, progress.micro_batch_size)
    plan = partial(build_phases, config, sets, model=model, task=task, world=world, forward=forward, workers=workers,
                   parameters=trainable(model), micro_batches=micro_batches)
    phases = plan(progress=progress, saved=checkpoint.state.config) if checkpoint else plan()
    hours = config.budget.hours

    def seconds_left() -> float:
        return math.inf if hours is None else SECONDS * hours - time_spent.total()

    coordinator = StopCoordinator(world, attempt, save_seconds=60 * config.checkpoints.every_minutes,
                                  seconds_left=seconds_left, stop_at=stop_at,
                                  next_check=progress.step, last_check=(progress.step, time.monotonic()))
    too_many_skipped = partial(check_skipped, n=len(sets.train), most=config.data.max_skipped)
    saver = Saver(progress=progress, counts=SampleCounts(attempt.number), world=world, model=model,
                  time_spent=time_spent, checkpoints=checkpoints, coordinator=coordinator, tracker=tracker,
                  steps=StepRecorder(world, attempt.steps, progress.step, own_losses=config.virtual_ranks is None),
                  stops_at_nonfinite=config.on_nonfinite == "stop", check_skipped=too_many_skipped,
                  names=lambda: sample_names(sets.train) or ())
    log = TrainingLog(world=world, tracker=tracker, total_steps=sum(phase.schedule.steps for phase in phases),
                      smoothing_steps=config.tracking.loss_smoothing_steps, first_step_file=attempt.first_step,
                      forward=forward, images=config.tracking.images, check_skipped=too_many_skipped,
                      seconds_left=seconds_left)

    def heartbeat() -> None:
        watchdog.pet(saver.progress.step)
        tracker.status()

    evaluator = Evaluator(model=model, task=task, sets=sets, forward=forward, world=world, tracker=tracker,
                          batch_size=config.evaluation.batch_size, workers=workers,
                          batch_statistics=config.evaluation.batch_statistics,
                          skip_unreadable=config.data.on_error == "skip", max_skipped=config.data.max_skipped,
                          monitor=config.evaluation.monitor, mode=config.evaluation.mode,
                          keep_best=config.checkpoints.keep_best,
                          images=config.tracking.images, metrics=build_metrics(config, task), heartbeat=heartbeat)
    return Training(world=world, model=model, architecture=str(config.model.get("_target_")), phases=phases,
                    plan=lambda progress: plan(progress=progress), saver=saver, evaluator=evaluator, log=log,
                    stragglers=Stragglers(world, attempt, tracker),
                    coordinator=coordinator, checkpoints=checkpoints, watchdog=watchdog, time_spent=time_spent,
                    log_every_steps=config.tracking.every_steps,
                    desync_check_steps=config.watchdog.desync_check_steps,
                    evaluate_at_start=config.evaluation.at_start, checkpoint=checkpoint)
