"""A run that cannot go on is rescued by `resume RUN KEY=VALUE`, which is checked from its checkpoint first."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.configs.run.changes import kept
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork, Part
from drumbeat.configs.run.manifest import checkpoint_path
from drumbeat.configs.run.records import Result
from drumbeat.trainers.commands.preflight import preflight
from drumbeat.trainers.commands.rehearsed_resume import newest_checkpoint
from drumbeat.trainers.tasks import Classification
from tests.tiny import drumbeat, latest
from tests.trainers.in_process import attempted, new_run
from tests.warm import run_python

ADAM = "phases.head.optimizer={_target_: torch.optim.Adam, lr: 0.1}"
ONE_CYCLE = "phases.head.scheduler={_target_: torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.1, total_steps: %d}"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that was stopped within its first phase."""
    run = new_run(tmp_path_factory.mktemp("stopped") / "run")
    attempted(run, 4, [ADAM])
    return run


def check(run: RunDir, *changes: str) -> None:
    config = load(run.path / "rows.yaml", [ADAM, *changes]).config
    preflight(config, checkpoint=newest_checkpoint(run.path))


def test_what_fits_is_accepted(stopped: RunDir) -> None:
    check(stopped, "batch_size=3", "phases.head.optimizer.lr=0.01", ONE_CYCLE % 7, "on_nonfinite=skip")


@pytest.mark.parametrize(("change", "said"), [
    ("phases.head.optimizer.amsgrad=true", "the run cannot continue from step-00000004 with these changes: KeyError"),
    (ONE_CYCLE % 5, "the scheduler fails at step 6 of the phase's 6"),
    ("phases.head.epochs=1.3", r"phase head has already trained for 1\.333 epochs"),
])
def test_what_does_not_fit_the_checkpoint_is_refused(stopped: RunDir, change: str, said: str) -> None:
    with pytest.raises(PreflightError, match=said):
        check(stopped, change)


def test_the_newest_intact_checkpoint_is_read_and_nothing_is_moved(stopped: RunDir, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(stopped.path, run.path, symlinks=True)
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(run.path) is not None
    (checkpoint_path(run, 4) / "model.safetensors").write_bytes(b"")
    found = newest_checkpoint(run.path)
    assert found is not None
    assert found.progress.step == 3
    assert checkpoint_path(run, 4).exists()


def test_a_fork_is_checked_at_its_step(stopped: RunDir, tmp_path: Path) -> None:
    """Which its checkpoint has not reached; in another phase there is no state to check it with."""
    run = RunDir(tmp_path / "run")
    shutil.copytree(stopped.path, run.path, symlinks=True)
    part = Part(until=5, config=kept(load(run.path / "rows.yaml", [ADAM]).config))
    fork = Fork(parent="20260101-000000-aaaaa", folder="/runs", step=5, start=4, phase=0, parts=(part,))
    fork.write(run.fork)
    check(run, "batch_size=3", "phases.head.optimizer.lr=0.01")
    with pytest.raises(PreflightError, match=r"phase head has already trained for 1\.667 epochs"):
        check(run, "phases.head.epochs=1.6")
    replace(fork, phase=1).write(run.fork)
    assert newest_checkpoint(run.path) is None


CONFIG = """
name: short
batch_size: 10
precision: fp32
model: {_target_: tests.tiny.Linear}
data:
  train: {_target_: tests.tiny.Pictures, n: 100}
  transforms: {batch: [{_target_: drumbeat.data.Normalize, mean: [0.5], std: [0.25]}]}
  workers: 0
phases:
  train:
    epochs: 2
    optimizer: {_target_: torch.optim.AdamW, lr: 0.01}
    scheduler: {_target_: torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.01, total_steps: 10}
checkpoints: {every_steps: 5}
tracking: {images: 0}
launch: {gpus: 0, cpus_per_rank: 1}
"""


def typed(folder: Path, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """`drumbeat WORDS`, with its preflight check."""
    done: subprocess.CompletedProcess[str] = run_python([sys.executable, "-m", "drumbeat", *words], cwd=folder,
                                                        text=True, capture_output=True)
    assert done.returncode == expect, f"{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.slow
def test_a_schedule_that_was_too_short_does_not_cost_the_run(tmp_path: Path) -> None:
    """It dies at step 11 of 20, and `why` names the command that gets past it. A schedule of another wrong length is
    refused, with nothing changed; one of the right length finishes the run, and everything says so."""
    (tmp_path / "short.yaml").write_text(CONFIG)
    assert "Tried to step 11 times" in " ".join(drumbeat(tmp_path, "short.yaml", expect=1).stdout.split())
    run, key = latest(tmp_path, "short"), "phases.train.scheduler.total_steps"
    why = typed(tmp_path, "why", "short").stdout
    assert f"resume {run.id} {key}=20" in " ".join(why.split())
    before = run.config.read_text()
    refused = typed(tmp_path, "resume", "short", f"{key}=15", expect=2)
    assert "the scheduler fails at step 16 of the phase's 20" in refused.stderr
    assert run.config.read_text() == before
    typed(tmp_path, "resume", "short", f"{key}=20")
    (change,) = Result.require(run.result).changes
    assert (change.key, change.old, change.new, change.step) == (key, 10, 20, 10)
    said = f"exact up to step 10; then {key} changed from 10 to 20 by resume"
    for command in ("status", "verify"):
        assert said in " ".join(typed(tmp_path, command, "short").stdout.split())


HERE = "tests.trainers.commands.test_rehearsed_resume"


class Weighing(Classification):
    """A task with a parameter that is trained."""

    def __init__(self, *, classes: Sequence[str] = ()) -> None:
        super().__init__(classes=classes)
        self.scale = nn.Parameter(torch.ones(()))

    def losses(self, outputs: Any, targets: Tensor) -> Tensor:
        return super().losses(outputs, targets) * self.scale.exp()


def owned(samples: list[Any]) -> Any:
    """As for graphs: the inputs are one long tensor, which cannot be cut into samples."""
    return {"values": torch.cat([torch.as_tensor(one) for one, _ in samples]), "target": torch.tensor(
        [int(target) for _, target in samples])}


class Owned(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values.view(-1, 4))


@pytest.mark.parametrize("changes", [
    [f"task._target_={HERE}.Weighing"],
    ["task._target_=drumbeat.trainers.tasks.Classification", f"data.collate_fn={{_target_: {HERE}.owned}}",
     f"model={{_target_: {HERE}.Owned}}"]])
def test_a_resume_is_rehearsed_with_the_task_and_with_batches_that_cannot_be_cut(tmp_path: Path,
                                                                                changes: list[str]) -> None:
    run = new_run(tmp_path / "run")
    changes = [*changes, "evaluation.monitor=loss", "evaluation.mode=min"]
    attempted(run, 4, changes)
    config = load(run.path / "rows.yaml", [*changes, "phases.head.optimizer.lr=0.05"]).config
    preflight(config, checkpoint=newest_checkpoint(run.path))
