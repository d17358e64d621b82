"""Speed of reading, decoding and training, by a clock that advances a second each time it is read."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.data.images import ImageFolder
from drumbeat.data.loader import Batch
from drumbeat.data.memory import Arrays
from drumbeat.trainers.build import Sets
from drumbeat.trainers.doctor.throughput import SECONDS, WARM_UP, decode, mean_size, median_rate, rate, step_rate


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)


def test_the_first_work_is_not_counted(clock: None) -> None:
    """It may start threads and fill caches. The clock is read at the start, before each work and at the end."""
    assert SECONDS == 3.0
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return 10_000 if number == 0 else number

    assert rate(work) == (1 + 2) / 4
    assert done == [0, 1, 2]


def test_a_few_slow_steps_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first steps and one of the others take as long as 50."""
    now = 0.0

    def step(number: int) -> int:
        nonlocal now
        now += 0.5 if number < WARM_UP or number == WARM_UP + 2 else 0.01
        return 4

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert median_rate(step) == pytest.approx(400)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cat").mkdir()
    for number, width in enumerate((2, 4)):
        Image.new("L", (width, 5)).save(tmp_path / "cat" / f"{number}.png")
    (tmp_path / "cat" / "2.png").write_bytes(b"nothing")
    return tmp_path


def test_the_mean_size_is_that_of_images_that_can_be_read(folder: Path) -> None:
    assert mean_size(ImageFolder(root=str(folder), channels=1)) == 15
    assert mean_size(ImageFolder(root=str(folder), channels=3)) == 45
    for file in folder.rglob("*.png"):
        file.write_bytes(b"nothing")
    assert mean_size(ImageFolder(root=str(folder))) == 0.0


def test_damaged_images_do_not_count_as_decoded(folder: Path) -> None:
    """Numbers beyond the last image start again at the first one."""
    images = ImageFolder(root=str(folder))
    assert [decode(images, number) for number in range(5)] == [1, 1, 0, 1, 1]


def test_a_training_step_counts_the_samples_of_its_batch(clock: None) -> None:
    """Each step of 5 samples takes a second."""
    samples = Arrays(torch.randn(5, 3), torch.arange(5) % 2)
    sets = Sets(train=samples, validation=None, test=None, train_transforms=[], evaluate_transforms=[])
    config = build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 5, "precision": "fp32", "micro_batch_size": 2,
        "model": {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2},
        "phases": {"only": {"epochs": 1, "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}}}})])
    batch = Batch(*samples.fetch(torch.arange(5).numpy()), torch.arange(5), torch.arange(5),
                  torch.zeros(5, dtype=torch.bool))
    assert step_rate(config, sets, batch, torch.device("cpu")) == 5
