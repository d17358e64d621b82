"""Fixtures of the tests of the commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CONFIG = """
name: pictures
batch_size: 4
precision: fp32
model: {_target_: tests.tiny.Net}
data:
  train: {_target_: drumbeat.data.ImageFolder, root: train, channels: 1}
  validation: {_target_: drumbeat.data.ImageFolder, root: validation, channels: 1}
  transforms:
    train: [{_target_: torchvision.transforms.v2.RandomResizedCrop, size: 8, scale: [0.5, 1.0]}]
    evaluate: [{_target_: torchvision.transforms.v2.Resize, size: [8, 8]}]
    batch: [{_target_: drumbeat.data.Normalize, mean: [0.9], std: [0.05]}]
phases: {only: {epochs: 1, optimizer: {_target_: torch.optim.SGD, lr: 0.1}}}
launch: {gpus: 0}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fourteen images in two classes; one cannot be read, and one is in both sets."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for split, label, count in (("train", "cat", 11), ("train", "dog", 1), ("validation", "cat", 1),
                                ("validation", "dog", 1)):
        (folder := tmp_path / split / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 256, (40 + number, 50), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    broken = tmp_path / "train" / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    shutil.copy(tmp_path / "train" / "cat" / "5.png", tmp_path / "validation" / "cat" / "0.png")
    (tmp_path / "pictures.yaml").write_text(CONFIG)
    return tmp_path
