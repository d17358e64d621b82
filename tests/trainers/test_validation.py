"""Evaluation while a run trains: what is the best, what is printed, and what is recorded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Heartbeat
from drumbeat.data.memory import Arrays
from drumbeat.data.user_code import SampleError
from drumbeat.trainers.build import Sets
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.report.events import read_events
from drumbeat.trainers.tasks import Classification, Results
from drumbeat.trainers.tracking import NullTracker, Tracker
from drumbeat.trainers.validation import Evaluator
from drumbeat.trainers.world import World

CPU = torch.device("cpu")
ALONE = World(rank=0, local_rank=0, size=1, device=CPU)
SAMPLES = Arrays(torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1, 0, 1]))
"""Logits, of which the last are wrong."""
RIGHT, WRONG = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
"""The loss of a sample."""


class Scored(Classification):
    """A classification whose metric `score` is given."""

    score = 0.0

    def metrics(self, results: Results) -> dict[str, float]:
        return {"loss": super().metrics(results)["loss"], "score": self.score}


class Damaged(Arrays):
    """Samples of which the first cannot be read."""

    fetch = None  # type: ignore[assignment]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index == 0:
            raise OSError("it is damaged")
        return super().__getitem__(index)


def evaluator(*, validation: Any = SAMPLES, test: Any = None, **changes: Any) -> Evaluator:
    forward = Forward(device=CPU, transforms=nn.Identity(), channels_last=False, bf16=False)
    sets = Sets(train=SAMPLES, validation=validation, test=test, train_transforms=[], evaluate_transforms=[])
    given = {"model": nn.Identity(), "task": Classification(), "world": ALONE, "tracker": NullTracker(),
             "batch_size": 3, "workers": 0, "batch_statistics": False, "skip_unreadable": False, "max_skipped": 0.5,
             "monitor": "loss", "mode": "min", "images": 0}
    return Evaluator(sets=sets, forward=forward, **(given | changes))


def test_the_metrics_become_the_last_and_the_best_of_the_progress(capsys: pytest.CaptureFixture[str]) -> None:
    progress, monitored = evaluator().validate(Progress(step=1200), "head", 0.5)
    assert monitored == pytest.approx((3 * RIGHT + WRONG) / 4, abs=1e-6)
    assert progress.last == progress.best == {"step": 1200, "phase": "head", "loss": monitored, "accuracy": 0.75}
    assert capsys.readouterr().out == (f"head  step 1,200  validation  loss {monitored:.4f} (best so far)  "
                                       "accuracy 0.7500\n    train loss 0.5000\n")


def test_without_a_validation_set_nothing_changes(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(step=5, best={"step": 3})
    assert evaluator(validation=None).validate(progress, "head", 0.5) == (progress, None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("mode", "scores", "best"), [
    ("max", [0.5, 0.75, 0.75, 0.25], [1, 2, 2, 2]),
    ("min", [0.5, 0.75, 0.5, 0.25], [1, 1, 1, 4]),
    ("max", [math.nan, math.nan, 0.5, math.nan], [1, 1, 3, 3]),
    ("min", [math.nan, 0.5, math.nan, 0.75], [1, 2, 2, 2]),
    ("max", [-math.inf, 0.5, math.inf], [1, 2, 3]),
])
def test_the_best_step_is_the_first_with_the_best_value(mode: str, scores: list[float], best: list[int]) -> None:
    """NaN is worse than any number."""
    task = Scored()
    one, progress, found = evaluator(task=task, monitor="score", mode=mode), Progress(), []
    for step, task.score in enumerate(scores, 1):
        progress, _ = one.validate(Progress(step=step, best=progress.best), "head", 0.5)
        assert progress.last["step"] == step
        found.append(progress.best["step"])
    assert found == best


@pytest.mark.parametrize(("mode", "scores", "top"), [
    ("max", [0.5, 0.75, 0.75, 0.25, 0.8], [[1], [2, 1], [2, 3], [2, 3], [5, 2]]),
    ("min", [math.nan, 0.5, math.nan, 0.5], [[1], [2, 1], [2, 1], [2, 4]]),
])
def test_the_best_evaluations_are_ranked_and_the_earlier_of_equals_comes_first(
        mode: str, scores: list[float], top: list[list[int]]) -> None:
    task, progress, found = Scored(), Progress(), []
    one = evaluator(task=task, monitor="score", mode=mode, keep_best=2)
    for step, task.score in enumerate(scores, 1):
        progress, _ = one.validate(replace(progress, step=step), "head", 0.5)
        found.append([one["step"] for one in progress.top])
        assert progress.best["step"] == found[-1][0]
        assert progress.is_among_best == (step in found[-1])
        assert progress.kept_steps == {*found[-1]}
    assert found == top


def test_weights_before_the_first_step_are_not_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    progress, _ = evaluator(keep_best=2).validate(Progress(), "head", 0.0)
    assert (progress.last["step"], progress.best, progress.top) == (0, {}, ())
    assert "best so far" not in (text := capsys.readouterr().out)
    assert "train loss" not in text


def test_the_curves_and_the_heartbeat_have_the_metrics(tmp_path: Path) -> None:
    """And a run that is not at its best keeps its best value."""
    run = RunDir(tmp_path)
    tracker = Tracker(run, attempt := run.claim_attempt(), step=0, config_text="")
    beats: list[int] = []
    evaluator(tracker=tracker, monitor="accuracy", mode="max", heartbeat=lambda: beats.append(1)).validate(
        Progress(step=4, best={"step": 2, "accuracy": 1.0}), "head", 0.5)
    tracker.close()
    assert read_events(run.tensorboard).curves["validation/accuracy"] == [(4, 0.75)]
    beat = Heartbeat.require(attempt.heartbeat)
    assert (beat.validation["accuracy"], beat.monitor, beat.best) == (0.75, "accuracy", 1.0)
    assert len(beats) == 2  # batches of at most 3 samples


def test_the_worst_samples_are_drawn(tmp_path: Path) -> None:
    images = Arrays(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))
    for most, tags in ((0, []), (3, ["validation/worst_samples"])):
        run = RunDir(tmp_path / str(most))
        tracker = Tracker(run, run.claim_attempt(), step=0, config_text="")
        evaluator(validation=images, model=nn.Flatten(), tracker=tracker, images=most).validate(
            Progress(step=4), "head", 0.5)
        tracker.close()
        assert [*read_events(run.tensorboard).images] == tags


def test_the_test_set() -> None:
    assert evaluator().test() == {}
    assert evaluator(test=SAMPLES, validation=None).test()["accuracy"] == 0.75


def test_samples_that_cannot_be_read_are_left_out_up_to_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    damaged = Damaged(SAMPLES.inputs, SAMPLES.targets)
    progress, _ = evaluator(validation=damaged, skip_unreadable=True).validate(Progress(), "head", 0.5)
    assert progress.last["accuracy"] == pytest.approx(2 / 3)
    note = "note: 1 of the 4 samples of the validation set could not be read and are left out\n"
    assert note in capsys.readouterr().out
    with pytest.raises(PreflightError, match="1 of the 4 samples of the validation set could not be read"):
        evaluator(validation=damaged, skip_unreadable=True, max_skipped=0.0).validate(Progress(), "head", 0.5)
    with pytest.raises(SampleError, match="it is damaged"):
        evaluator(validation=damaged).validate(Progress(), "head", 0.5)
