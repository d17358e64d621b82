"""A small config to load, and the faults of loading it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError, Fault

BASE = """\
name: small
batch_size: 12
model: {_target_: nets.Net, width: 8}
data:
  train: {_target_: sets.Folder, root: pictures/train}
  test: {_target_: sets.Folder, root: pictures/test}
  transforms:
    train:
      - {_target_: torchvision.transforms.v2.RandomCrop, size: 8}
phases:
  head:
    epochs: 2
    freeze: [backbone]
    optimizer: {_target_: torch.optim.Adam, lr: 1e-2}
  finetune:
    epochs: 2.5
    batch_size: 10
    optimizer: {_target_: torch.optim.SGD, lr: 0.05}
"""


Write = Callable[..., Path]


def faults(error: pytest.ExceptionInfo[ConfigError]) -> list[Fault]:
    return list(error.value.faults)
