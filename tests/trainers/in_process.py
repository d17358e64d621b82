"""A run of two phases, small enough to train in the process of the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch._subclasses.fake_tensor import FakeTensor

from drumbeat.configs.load import load
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.build import build_sets
from drumbeat.trainers.loop import End, Training
from drumbeat.trainers.tasks import Classification, Results
from drumbeat.trainers.worker import build
from drumbeat.trainers.world import World

CONFIG = """
name: rows
batch_size: 4
precision: fp32
model: {_target_: torch.nn.Linear, in_features: 4, out_features: 3}
task: {_target_: tests.trainers.in_process.EightMetrics}
data:
  train: {_target_: tests.trainers.test_loop.Rows, n: 12}
  validation: {_target_: tests.trainers.test_loop.Rows, n: 6}
  workers: 0
evaluation: {monitor: macro_f1, mode: max}
phases:
  head: &phase
    epochs: 2
    optimizer: {_target_: tests.trainers.in_process.Witness, lr: 0.1}
    scheduler: {_target_: torch.optim.lr_scheduler.ExponentialLR, gamma: 0.5}
  all: {<<: *phase, optimizer: {_target_: tests.trainers.in_process.Witness, lr: 0.3}}
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
            self.rates.append(self.param_groups[-1]["lr"])
        super().step(closure)


class EightMetrics(Classification):
    """Metrics under ordinary names; their values are of no interest."""

    metric_names = ("loss", "accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "roc_auc",
                "average_precision")

    def metrics(self, results: Results) -> dict[str, float]:
        return dict.fromkeys(self.metric_names, 0.5) | super().metrics(results)


def new_run(folder: Path) -> RunDir:
    run = RunDir(folder)
    run.path.mkdir(parents=True)
    (run.path / "rows.yaml").write_text(CONFIG)
    run.config.touch()
    return run


def trained(run: RunDir, changed: Callable[[Training, Attempt], Training]) -> tuple[Training, End]:
    """One attempt of a training that is changed before it runs, and how it ended."""
    attempt = run.claim_attempt()
    config = load(run.path / "rows.yaml").config
    training = changed(build(run, attempt, config, build_sets(config), ALONE, threads=1, debug=True), attempt)
    try:
        return training, training.run()
    finally:
        training.checkpoints.close()
        training.saver.tracker.close()
        training.watchdog.close()


def train(run: RunDir, stop_after: int | None = None) -> list[float]:
    """One attempt, which a stop request may end; the mean loss of each of its steps."""
    return attempted(run, stop_after)[1]


def attempted(run: RunDir, stop_after: int | None = None, changes: Sequence[str] = ()) -> tuple[Training, list[float]]:
    """The same with changes to the config, and what was trained."""
    attempt = run.claim_attempt()
    config = load(run.path / "rows.yaml", changes).config
    training = build(run, attempt, config, build_sets(config), ALONE, threads=1, debug=True)
    losses: list[float] = []
    log_step = training.log.step

    def step(*values: object, **named: object) -> None:
        losses.append(float(values[1]))  # type: ignore[arg-type]
        if training.progress.step == stop_after:
            attempt.request_stop("stopped")
        log_step(*values, **named)  # type: ignore[arg-type]

    training.log.step = step  # type: ignore[method-assign]
    try:
        training.run()
    finally:
        training.checkpoints.close()
        training.saver.tracker.close()
        training.watchdog.close()
    return training, losses
