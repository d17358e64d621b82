"""Run folders with a saved checkpoint, made without training, to test evaluation and inference with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from drumbeat.configs.load import load
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.build import build_sets, place_model
from drumbeat.trainers.checkpoints.manager import Checkpoints
from drumbeat.trainers.facts import facts_of, with_facts
from drumbeat.trainers.sample_counts import describe_training_set
from tests.runs import write_plan

PHASES = "phases: {only: {epochs: 1, optimizer: {_target_: torch.optim.Adam, lr: 1e-3}}}\n"

IMAGES = """
name: saved
batch_size: 4
precision: fp32
model: {_target_: tests.trainers.saved_runs.Small, outputs: from_data}
data:
  train: {_target_: drumbeat.data.ImageFolder, root: ROOT/train, channels: 1}
  test: {_target_: drumbeat.data.ImageFolder, root: ROOT/test, channels: 1}
  transforms:
    evaluate:
      - {_target_: torchvision.transforms.v2.Resize, size: 20}
      - {_target_: torchvision.transforms.v2.CenterCrop, size: 16}
    batch: [{_target_: drumbeat.data.Normalize, mean: [0.5], std: [0.25]}]
  workers: 0
evaluation: {batch_size: 4}
""".replace("outputs: from_data", "classes: from_data") + PHASES

REGRESSION = IMAGES.replace("classes: from_data", "classes: 2").replace(
    "{_target_: drumbeat.data.ImageFolder, root: ROOT/train, channels: 1}",
    "{_target_: drumbeat.data.ImageTable, file: ROOT/table.csv, labels: [x, y], numeric: true, channels: 1}").replace(
    "{_target_: drumbeat.data.ImageFolder, root: ROOT/test, channels: 1}",
    "{_target_: drumbeat.data.ImageTable, file: ROOT/table.csv, labels: [x, y], numeric: true, channels: 1}") + (
    "task: {_target_: drumbeat.trainers.tasks.Regression}\n")

TEXTS = """
name: saved
batch_size: 4
precision: fp32
model: {_target_: drumbeat.models.LSTM, vocab_size: from_data, classes: from_data, embedding_dim: 8, hidden_size: 8}
task: {_target_: drumbeat.trainers.tasks.MultiLabel}
data:
  train: &texts
    _target_: drumbeat.data.Texts
    file: ROOT/train.csv
    text: content
    labels: [Sports, World]
    vocabulary: {_target_: drumbeat.data.Vocabulary, file: ROOT/train.csv, text: content, min_frequency: 1}
  test: {<<: *texts, file: ROOT/test.csv}
  workers: 0
evaluation: {batch_size: 4}
""" + PHASES


class Small(nn.Module):
    """Pictures float [N, 1, H, W] -> [N, classes], with a BatchNorm whose statistics are not those of any batch."""

    def __init__(self, *, classes: int, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Linear(4 * width, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.body(pictures).flatten(1))  # type: ignore[no-any-return]


def run_of(folder: Path, text: str) -> RunDir:
    """A run of a config, in which ROOT stands for `folder`. Its initial weights are saved as step 3, best and last."""
    (folder / "saved.yaml").write_text(text.replace("ROOT", str(folder)))
    loaded = load(folder / "saved.yaml")
    run = RunDir(folder / "runs" / "saved" / "20260101-000000-aaaaa")
    write_plan(run)
    run.config.write_text(loaded.as_yaml())
    sets = build_sets(loaded.config)
    model = place_model(with_facts(loaded.config, facts_of(sets.train)), torch.device("cpu"))
    checkpoints = Checkpoints(run, run.claim_attempt(), keep=2)
    progress = Progress(step=3, best={"step": 3}, data=describe_training_set(sets.train))
    checkpoints.save(progress, model.state_dict(), {}, {})
    checkpoints.close()
    return run


def draw_images(folder: Path) -> None:
    """Gray pictures of cats and dogs, of several sizes and kinds of file: 3 to train on, 11 to evaluate on."""
    random = np.random.default_rng(0)
    for split, label, count in (("train", "cat", 2), ("train", "dog", 1), ("test", "cat", 5), ("test", "dog", 6)):
        (folder / split / label).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (40 + number, 60), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / label / f"{number}.{'png' if number % 2 else 'jpeg'}")


def write_table(folder: Path) -> None:
    """A table of the pictures to evaluate on, with two numbers each."""
    files = sorted((folder / "test").rglob("*.*"))
    lines = [f"{file.relative_to(folder)},{number},{number * number / 10}" for number, file in enumerate(files)]
    (folder / "table.csv").write_text("\n".join(["file,x,y", *lines]) + "\n")


def write_texts(folder: Path) -> None:
    """Stories with two labels."""
    stories = ["the ball and the goal,1,0", "a war far away,0,1", "the match of the world,1,1", "nothing at all,0,0",
               "goal goal goal,1,0", "war and peace,0,1"]
    for name in ("train", "test"):
        (folder / f"{name}.csv").write_text("\n".join(["content,Sports,World", *stories]) + "\n")
