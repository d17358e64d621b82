"""A run fails, and the command that `why` names gets past what ended it: each is typed, and the run finishes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drumbeat.configs.run.changes import exactness
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from tests.tiny import drumbeat, latest
from tests.warm import run_python

CONFIG = """
name: tiny
batch_size: 4
precision: fp32
model: {_target_: tests.tiny.Linear}
data:
  train: {_target_: tests.tiny.Pictures, n: 24}
  validation: {_target_: tests.tiny.Pictures, n: 8, first: 1000}
  transforms: {batch: [{_target_: drumbeat.data.Normalize, mean: [0.5], std: [0.25]}]}
  workers: 0
phases:
  head: {epochs: 2, optimizer: {_target_: torch.optim.SGD, lr: 0.001}}
  rest: {epochs: 1, start_from: best, optimizer: {_target_: torch.optim.SGD, lr: 0.001}}
evaluation: {batch_size: 8}
checkpoints: {every_steps: 3, keep: 1}
tracking: {images: 0}
launch: {gpus: 0, cpus_per_rank: 1}
"""
pytestmark = pytest.mark.slow


def advised(folder: Path) -> list[str]:
    """The first command for `resume` that `why` names, as the words after the program."""
    command = [sys.executable, "-m", "drumbeat", "why", "tiny"]
    done: subprocess.CompletedProcess[str] = run_python(command, cwd=folder, text=True, capture_output=True, check=True)
    found = re.search(r"drumbeat (resume \S+(?: [\w.]+=\S+)*)", " ".join(done.stdout.split()))
    assert found, done.stdout
    return found[1].split()


def rescued(folder: Path, *changes: str) -> Result:
    """The result of the run, once its advice was followed, which ends with these changes."""
    words = advised(folder)
    assert words[2:] == [*changes]
    done = run_python([sys.executable, "-m", "drumbeat", *words, "--no-preflight"], cwd=folder, text=True,
                      capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return Result.require(latest(folder).result)


def fails(folder: Path, *changes: str) -> RunDir:
    (folder / "tiny.yaml").write_text(CONFIG)
    drumbeat(folder, "tiny.yaml", *changes, expect=1)
    return latest(folder)


def test_a_nan_loss(tmp_path: Path) -> None:
    fails(tmp_path, "data.train={_target_: tests.tiny.Poisoned, n: 24, poison: 5}")
    result = rescued(tmp_path, "on_nonfinite=skip")
    assert result.steps == 18
    assert result.weights_sha256


def draw(folder: Path, damaged: int) -> None:
    for number in range(24):
        path = folder / "images" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(path)
        if number < damaged:
            path.write_bytes(path.read_bytes()[:-30])


IMAGES = ["data.train={_target_: drumbeat.data.ImageFolder, root: images, channels: 1}", "data.validation={}",
          "phases.rest=null"]


def test_an_unreadable_file_and_then_too_many(tmp_path: Path) -> None:
    """The advice for the second error is another one than for the first."""
    draw(tmp_path, damaged=1)
    fails(tmp_path, *IMAGES, "data.max_skipped=0.1")
    assert rescued(tmp_path, "data.on_error=skip").samples_skipped == 2
    draw(tmp_path, damaged=4)
    fails(tmp_path, *IMAGES, "data.on_error=skip")
    assert rescued(tmp_path, "data.max_skipped=1").samples_skipped == 8


def test_the_best_weights_are_damaged_before_a_phase_starts_from_them(tmp_path: Path) -> None:
    """There is no older checkpoint to train them again."""
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    drumbeat(tmp_path, "tiny.yaml", "task={_target_: tests.tiny.StopsItself, after: 10, runs: runs}",
             "evaluation.mode=max", "phases.head.optimizer.lr=0.1", expect=130)
    run = latest(tmp_path)
    best = (run.checkpoints / "best").resolve()
    assert best != (run.checkpoints / "last").resolve()
    os.truncate(best / "model.safetensors", 5)
    drumbeat(tmp_path, "--resume", "tiny", expect=1)
    result = rescued(tmp_path)
    assert exactness(result.changes) == f"exact up to step 12; then the best weights, of step {int(best.name[5:])}, " \
                                        "were lost"
