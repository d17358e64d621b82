"""What a run prints and draws while it trains: lines of 80 columns at intervals, the mean training loss at an
evaluation, and the learning rate that each step was taken with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from drumbeat.configs.load import load
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers import stopping, training_log
from drumbeat.trainers.build import build_sets
from drumbeat.trainers.tasks import Classification, Results
from drumbeat.trainers.worker import build
from drumbeat.trainers.world import World

CONFIG = """
name: rows
batch_size: 4
precision: fp32
model: {_target_: torch.nn.Linear, in_features: 4, out_features: 3}
task: {_target_: tests.trainers.test_training_log.EightMetrics}
data:
  train: {_target_: tests.trainers.test_loop.Rows, n: 12}
  validation: {_target_: tests.trainers.test_loop.Rows, n: 6}
  workers: 0
evaluation: {monitor: macro_f1, mode: max}
phases:
  head: &phase
    epochs: 2
    optimizer: {_target_: tests.trainers.test_training_log.Witness, lr: 0.1}
    scheduler: {_target_: torch.optim.lr_scheduler.ExponentialLR, gamma: 0.5}
  all: {<<: *phase, optimizer: {_target_: tests.trainers.test_training_log.Witness, lr: 0.3}}
checkpoints: {every_steps: 4}
tracking: {every_steps: 1, images: 0}
launch: {gpus: 0, cpus_per_rank: 1}
"""
ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
RATES = [base * 0.5**step for base in (0.1, 0.3) for step in range(6)]


class Witness(torch.optim.SGD):
    """Notes the learning rate of each step that it takes, except on tensors without values."""

    rates: ClassVar[list[float]] = []

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if not isinstance(self.param_groups[0]["params"][0], FakeTensor):
            self.rates.append(self.param_groups[0]["lr"])
        super().step(closure)


class EightMetrics(Classification):
    """Metrics under ordinary names; their values are of no interest."""

    metric_names = ("loss", "accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "roc_auc",
                "average_precision")

    def metrics(self, results: Results) -> dict[str, float]:
        return dict.fromkeys(self.metric_names, 0.5) | super().metrics(results)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    Witness.rates = []
    return new_run(tmp_path / "run")


def new_run(folder: Path) -> RunDir:
    run = RunDir(folder)
    run.path.mkdir()
    (run.path / "rows.yaml").write_text(CONFIG)
    run.config.touch()
    return run


def train(run: RunDir, stop_after: int | None = None) -> list[float]:
    """One attempt, which a stop request may end; the mean loss of each of its steps."""
    attempt = run.claim_attempt()
    config = load(run.path / "rows.yaml").config
    training = build(run, attempt, config, build_sets(config), ALONE, threads=1, debug=True)
    losses: list[float] = []
    log_step = training.log.step

    def step(*values: object, **named: object) -> None:
        losses.append(float(values[1]))  # type: ignore[arg-type]
        if training.progress.step == stop_after:
            attempt.request_stop("stopped")
        log_step(*values, **named)  # type: ignore[arg-type]

    training.log.step = step  # type: ignore[method-assign]
    training.run()
    training.checkpoints.close()
    training.saver.tracker.close()
    training.watchdog.close()
    return losses


def curve(run: RunDir, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run.tensorboard)).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_the_curve_holds_the_rate_that_each_step_was_taken_with(run: RunDir) -> None:
    """A scheduler that advances after each step already holds the next step's rate when the point is made."""
    train(run)
    assert [step for step, _ in curve(run, "train/lr")] == [*range(1, 13)]
    assert Witness.rates == pytest.approx(RATES)
    assert [rate for _, rate in curve(run, "train/lr")] == pytest.approx(Witness.rates)


def test_also_after_a_resume(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_LOOKS", 0.0)
    assert len(train(run, stop_after=3)) == 3
    assert len(train(run, stop_after=8)) == 5
    train(run)
    assert Witness.rates == pytest.approx(RATES)
    assert [rate for _, rate in curve(run, "train/lr")] == pytest.approx(Witness.rates)


def test_a_line_at_the_first_point_of_each_phase_and_then_at_intervals(run: RunDir, monkeypatch: pytest.MonkeyPatch,
                                                                       capsys: pytest.CaptureFixture[str]) -> None:
    assert training_log.SECONDS_BETWEEN_LINES == 15
    pattern = r"(head|all)  step (\d+)/12  loss (\d\.\d{4})  lr (\S+)  [\d,]+/s  0:0\d left"
    losses = train(run)
    lines = [line for line in capsys.readouterr().out.splitlines() if "validation" not in line]
    found = [match.groups() for line in lines if (match := re.fullmatch(pattern, line))]
    assert found == [("head", "1", f"{losses[0]:.4f}", "1.0e-01"), ("all", "7", f"{losses[6]:.4f}", "3.0e-01")]
    monkeypatch.setattr(training_log, "SECONDS_BETWEEN_LINES", 0.0)
    train(new_run(run.path.parent / "other"))
    lines = capsys.readouterr().out.splitlines()
    found = [match.groups() for line in lines if (match := re.fullmatch(pattern, line))]
    assert [step for _, step, *_ in found] == [*map(str, range(1, 13))]


def test_an_evaluation_prints_the_monitored_metric_first_and_the_loss_since_the_last_one(
        run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    losses = train(run)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    texts = re.findall(r"(?m)^.*  validation  (?:.*\n)(?:    .*\n)*", out)
    assert len(texts) == 4
    assert texts[0].startswith("head  step 3  validation  macro_f1 0.5000 (best so far)  loss ")
    assert texts[1].startswith("head  step 6  validation  macro_f1 0.5000  loss ")
    for number, text in enumerate(texts):
        mean = sum(losses[3 * number:3 * number + 3]) / 3
        assert " ".join(text.split()).endswith(f"average_precision 0.5000 train loss {mean:.4f}")
        assert {*re.findall(r"([a-z_0-9]+) \d\.\d{4}", text)} == {*EightMetrics.metric_names}


def test_a_line_costs_no_synchronisation_of_its_own(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are read from the device as often with a line at each point as without any."""
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_LOOKS", 0.0)  # the ranks look for a stop before each step
    reads: list[int] = []
    for name in ("item", "tolist", "__float__", "__bool__", "__int__"):
        real = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda self, real=real: (reads.append(1), real(self))[1])
    counts = []
    for seconds in (0.0, float("inf")):
        monkeypatch.setattr(training_log, "SECONDS_BETWEEN_LINES", seconds)
        reads.clear()
        train(new_run(run.path.parent / str(seconds)))
        counts.append(len(reads))
    assert counts[0] == counts[1] > 0
