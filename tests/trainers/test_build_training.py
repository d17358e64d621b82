"""The training as the config describes it: intervals, limits, and what each part is connected to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.build import build_sets, build_task
from drumbeat.trainers.build_training import build_training
from drumbeat.trainers.checkpoints.manager import Checkpoints
from drumbeat.trainers.loop import Training
from drumbeat.trainers.time_spent import TimeSpent
from drumbeat.trainers.tracking import NullTracker
from drumbeat.trainers.watchdog import Watchdog
from drumbeat.trainers.world import World
from tests.tiny import Net, write_config

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
Build = Callable[..., Training]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Builds the training of tests/tiny.py from a config with changes."""
    attempt = RunDir(tmp_path / "run").claim_attempt()
    watchdog = Watchdog(attempt, 0, math.inf)

    def build(*changes: str, model: nn.Module | None = None, progress: Progress | None = None,
              **given: Any) -> Training:
        config = load(write_config(tmp_path), changes).config
        return build_training(config, build_sets(config), ALONE, model or Net(), build_task(config, None),
                              attempt=attempt, checkpoint=None,
                              checkpoints=Checkpoints(RunDir(tmp_path / "run"), attempt, keep=2),
                              progress=progress or Progress(), watchdog=watchdog, workers=0,
                              **{"tracker": NullTracker(), "time_spent": TimeSpent({}, began=0.0), **given})

    yield build
    watchdog.close()


def test_the_length_of_a_run_is_the_sum_of_its_phases(build: Build) -> None:
    """Two epochs of 100 samples in batches of 12, and two and a half in batches of 10."""
    training = build()
    assert [phase.schedule.steps for phase in training.phases] == [17, 25]
    assert training.log.total_steps == 42
    assert [phase.start_from for phase in training.phases] == ["last", "best"]


def test_all_parts_share_the_model_and_the_objects_of_the_attempt(build: Build) -> None:
    model, tracker, spent = Net(), NullTracker(), TimeSpent({}, began=0.0)
    training = build(model=model, tracker=tracker, time_spent=spent)
    assert {*map(id, (training.model, training.saver.model, training.evaluator.model))} == {id(model)}
    assert {*map(id, (training.saver.tracker, training.evaluator.tracker, training.log.tracker))} == {id(tracker)}
    assert training.saver.time_spent is training.time_spent is spent
    assert training.saver.coordinator is training.coordinator
    assert training.evaluator.forward is training.log.forward
    assert training.phases[0].make_runner().forward is training.log.forward
    assert training.architecture == "tests.tiny.Net"
    assert training.saver.counts.attempt == 0


def test_settings_come_from_their_keys(build: Build) -> None:
    training = build("checkpoints.every_minutes=1.5", "checkpoints.every_steps=7", "tracking.every_steps=5",
                     "tracking.loss_smoothing_steps=9", "tracking.images=3", "watchdog.desync_check_steps=11",
                     "evaluation={batch_size: 13, monitor: accuracy, mode: max, batch_statistics: true}",
                     "data.on_error=skip", "data.max_skipped=0.25", "on_nonfinite=skip")
    assert training.coordinator.save_seconds == 90
    assert {phase.marks.save_steps for phase in training.phases} == {7}
    assert (training.log_every_steps, training.desync_check_steps) == (5, 11)
    assert (training.log.recent.maxlen, training.log.images) == (9, 3)
    evaluator = training.evaluator
    assert (evaluator.batch_size, evaluator.monitor, evaluator.mode, evaluator.batch_statistics) == (
        13, "accuracy", "max", True)
    assert (evaluator.skip_unreadable, evaluator.max_skipped, evaluator.images) == (True, 0.25, 3)
    assert not training.saver.stops_at_nonfinite


@pytest.mark.parametrize(("policy", "stops"), [("stop", True), ("skip", False), ("ignore", False)])
def test_only_one_policy_ends_a_run_at_a_gradient_that_is_not_finite(build: Build, policy: str, stops: bool) -> None:
    assert build(f"on_nonfinite={policy}").saver.stops_at_nonfinite == stops


def test_a_resumed_run_checks_for_a_stop_before_its_first_step(build: Build) -> None:
    before = time.monotonic()
    training = build(progress=Progress(step=9, phase_step=9))
    assert training.progress.step == training.coordinator.next_check == 9
    step, moment = training.coordinator.last_check
    assert step == 9
    assert before <= moment <= time.monotonic()


def test_the_limit_of_unreadable_samples_is_a_fraction_of_the_training_set(build: Build) -> None:
    """Of 100 samples, 25 may be unreadable, for the curves and for a save alike."""
    training = build("data.on_error=skip", "data.max_skipped=0.25")
    progress = Progress(step=1, samples=12, skipped=20)
    for check in (training.saver.check_skipped, training.log.check_skipped):
        check(progress, 5)
        with pytest.raises(PreflightError, match="26 of 12 samples could not be read"):
            check(progress, 6)


class Beats(NullTracker):
    """Counts the heartbeats of an evaluation."""

    count = 0

    def status(self, *, now: bool = False, **fields: Any) -> None:
        self.count += not fields


def test_an_evaluation_keeps_the_watchdog_and_the_heartbeat_alive(build: Build) -> None:
    """30 samples in batches of 8."""
    tracker = Beats()
    training = build(tracker=tracker)
    before = training.watchdog.petted
    training.evaluator.validate(replace(training.progress, step=3), "head", 0.5)
    assert tracker.count == 4
    assert training.watchdog.petted > before
