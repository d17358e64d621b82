"""The progress of a run: a step counts at once, its samples when it is known to be taken, and a save keeps both."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.data.loader import Batch
from drumbeat.trainers.build import build_forward
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.checkpoints.manager import Checkpoints
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.guards import NotFiniteError
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.sample_counts import SampleCounts
from drumbeat.trainers.saving import Saver
from drumbeat.trainers.step_recorder import StepRecorder
from drumbeat.trainers.stopping import StopCoordinator
from drumbeat.trainers.tasks import Classification
from drumbeat.trainers.time_spent import TimeSpent
from drumbeat.trainers.tracking import NullTracker
from drumbeat.trainers.world import World
from tests.trainers.in_process import attempted, new_run

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
CONFIG = build_config([Layer(origin="test", values={
    "name": "x", "batch_size": 3, "model": {"_target_": "x"}, "precision": "fp32",
    "phases": {"only": {"epochs": 1, "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}}}})])


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def parts(run: RunDir, *, world: World = ALONE, stops: bool = False, **changes: Any) -> tuple[Saver, PhaseRunner]:
    model, attempt = nn.Linear(2, 2), run.claim_attempt()
    runner = build_phase_runner(CONFIG, 0, model, Classification(), world, build_forward(CONFIG, world.device))
    runner.train_mode()
    given = {"progress": Progress(), "check_skipped": lambda progress, replaced: None} | changes
    return Saver(counts=SampleCounts(attempt.number), world=world, model=model, checkpoints=Checkpoints(
        run, attempt, keep=1), coordinator=StopCoordinator(world, attempt, save_seconds=math.inf, saved_at=0.0),
        tracker=NullTracker(), time_spent=TimeSpent({}, began=time.time()), stops_at_nonfinite=stops,
        steps=StepRecorder(world, attempt.steps, 0),
        **given), runner  # type: ignore[arg-type]


def take(saver: Saver, runner: PhaseRunner, value: float = 1.0) -> None:
    """A step as the loop takes it, on three samples, the last of which replaces another one."""
    step = saver.progress.step
    batch = Batch(torch.full((3, 2), value), torch.tensor([0, 1, 0]), torch.arange(3) + 3 * step, torch.arange(3),
                  torch.tensor([False, False, True]))
    loss = runner.backward([batch], step)
    saver.settle(runner)
    saver.take(runner, [batch], loss)


def test_a_step_counts_at_once_and_its_samples_when_it_is_settled(run: RunDir) -> None:
    saver, runner = parts(run)
    take(saver, runner)
    assert (saver.progress.step, saver.progress.phase_step, saver.progress.samples) == (1, 1, 3)
    assert saver.counts.steps == 0
    assert saver.pending is not None
    assert [(part.inputs, part.targets) for part in saver.pending.parts] == [(None, None)]
    saver.settle(runner)
    counts = saver.counts.count()
    assert (saver.pending, counts.steps, counts.samples, counts.replaced) == (None, 1, 3, 1)
    saver.settle(runner)
    assert saver.counts.steps == 1


def test_a_skipped_step_changes_no_weights_and_is_reported(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    """Its samples count, because the next step reads the next ones."""
    saver, runner = parts(run)
    before = weights_sha256(saver.model.state_dict())
    take(saver, runner, math.nan)
    saver.settle(runner)
    assert weights_sha256(saver.model.state_dict()) == before
    assert capsys.readouterr().out == ("skipped    NaN or Inf loss at step 0 on rank 0: the loss is nan; positions 0 "
                                       "(sample 0), 1 (sample 1), 2 (sample 2)\n")
    assert (saver.progress.step, saver.counts.count().samples) == (1, 3)


def test_a_step_that_ends_the_run_leaves_the_progress_before_it(run: RunDir) -> None:
    saver, runner = parts(run, stops=True)
    before = weights_sha256(saver.model.state_dict())
    take(saver, runner, math.inf)
    with pytest.raises(NotFiniteError, match="at step 0 on rank 0"):
        saver.settle(runner)
    assert (saver.progress.step, saver.progress.samples, saver.progress.ledger) == (0, 0, ())
    assert weights_sha256(saver.model.state_dict()) == before
    assert not run.checkpoints.exists()  # nothing has been trained yet


def test_a_save_settles_the_pending_step_and_closes_a_span(run: RunDir) -> None:
    """On a rank that is not the first, which writes no file."""
    checked: list[tuple[int, int]] = []
    saver, runner = parts(run, world=replace(ALONE, rank=1), progress=Progress(step=7, phase_step=2, samples=40),
                          check_skipped=lambda progress, replaced: checked.append((progress.skipped, replaced)))
    for _ in range(2):
        take(saver, runner)
    saver.save(runner)
    (span,) = saver.progress.ledger
    assert (span.first_step, span.steps, span.samples, span.phase) == (2, 2, 6, 0)
    assert (saver.progress.step, saver.progress.samples, saver.progress.skipped) == (9, 46, 2)
    assert saver.progress.seconds.keys() == saver.time_spent.seconds.keys()
    assert checked == [(2, 0)]
    assert saver.coordinator.saved_at > 0.0
    assert not run.checkpoints.exists()
    saver.save(runner)
    assert saver.progress.ledger == (span,)


def test_rank_0_writes_weights_optimizer_and_progress(run: RunDir) -> None:
    saver, runner = parts(run)
    take(saver, runner)
    saver.save(runner)
    saver.checkpoints.close()
    found = saver.checkpoints.newest()
    assert found is not None
    assert found.progress == saver.progress
    assert weights_sha256(found.model()) == weights_sha256(saver.model.state_dict())
    assert found.state.optimizer[""]["groups"][0]["lr"] == 0.1


def test_a_run_in_fp16_is_exact_and_does_not_stop_at_a_step_that_overflows(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["precision=fp16", "model={_target_: tests.trainers.test_loop.Net, poisoned: []}",
               "data.train={_target_: tests.trainers.test_averaging.OneUnusable, n: 12}", "phases.all=null"]
    straight, _ = attempted(new_run(tmp_path / "straight"), None, changes)
    assert "; the loss is now scaled by 32768\n" in capsys.readouterr().out
    stopped = new_run(tmp_path / "stopped")
    attempted(stopped, 4, changes)
    resumed, _ = attempted(stopped, None, changes)
    assert weights_sha256(resumed.model.state_dict()) == weights_sha256(straight.model.state_dict())
    one, other = (CheckpointState.require(tmp_path / name / "checkpoints" / "last" / "state.json")
                  for name in ("straight", "stopped"))
    assert one.scaler == other.scaler and one.scaler["scale"] == 2**13
    assert one.progress.steps_skipped == 3  # two for their samples, and one that is too large
