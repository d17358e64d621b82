"""With virtual ranks a run has the same bits on any number of ranks and loader workers: weights, curves, metrics,
samples and the state that the next step depends on. Also if it is killed and goes on with another number of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.load import load
from drumbeat.configs.run.checkpoint_records import CheckpointState
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.build import build_sets
from drumbeat.trainers.commands.compare import differences
from drumbeat.trainers.kernels import prefer_determinism
from drumbeat.trainers.worker import build, finish
from drumbeat.trainers.world import World
from tests.ranks import on_ranks

COMMON = """
batch_size: 10
virtual_ranks: 6
evaluation: {batch_size: 7}
tracking: {every_steps: 1, images: 0}
checkpoints: {every_steps: 5}
launch: {gpus: 0}
"""
CASES = {
    "convolutions": """
model: {_target_: tests.trainers.test_virtual_ranks.Convolutions}
precision: bf16
data:
  train: {_target_: tests.tiny.Pictures, n: 54}
  validation: {_target_: tests.tiny.Pictures, n: 30, first: 1000}
  test: {_target_: tests.tiny.Pictures, n: 9, first: 2000}
  transforms: {train: [{_target_: torchvision.transforms.v2.RandomCrop, size: 8, padding: 1}],
               batch: [{_target_: drumbeat.data.Normalize, mean: [0.5], std: [0.25]}]}
phases:
  only:
    epochs: 2
    optimizer: {_target_: torch.optim.SGD, lr: 0.1, momentum: 0.9}
    scheduler: {_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, patience: 0, factor: 0.5}
""",
    "mixed": """
model: {_target_: tests.tiny.Linear}
precision: bf16
micro_batch_size: 1
task:
  _target_: tests.trainers.tasks.test_logged.Terms
  loss: {_target_: torch.nn.CrossEntropyLoss, weight: {_target_: torch.tensor, data: [1.0, 3.0]}}
data:
  train: {_target_: tests.tiny.Pictures, n: 54}
  validation: {_target_: tests.tiny.Pictures, n: 30, first: 1000}
  mix: {_target_: drumbeat.data.Mixup}
  transforms: {batch: [{_target_: drumbeat.data.Normalize, mean: [0.5], std: [0.25]}]}
phases:
  one: &phase
    epochs: 1
    optimizer: {_target_: torch.optim.AdamW, lr: 0.01}
    clip_norm: 0.2
    average:
      _target_: torch.optim.swa_utils.AveragedModel
      multi_avg_fn: {_target_: torch.optim.swa_utils.get_ema_multi_avg_fn, decay: 0.9}
  two: {<<: *phase, batch_size: 13, start_from: best}
""",
    "texts": """
model: {_target_: tests.trainers.test_virtual_ranks.Words}
precision: bf16
data:
  train: {_target_: tests.trainers.test_virtual_ranks.Texts, n: 50}
  validation: {_target_: tests.trainers.test_virtual_ranks.Texts, n: 20}
  collate_fn: {_target_: tests.trainers.test_virtual_ranks.padded}
  bucket_batches: 3
phases: {only: {epochs: 2, optimizer: {_target_: torch.optim.Adam, lr: 0.01}}}
""",
    "buffers": """
model: {_target_: tests.trainers.test_virtual_ranks.Stateful}
precision: fp32
data:
  train: {_target_: tests.tiny.Pictures, n: 54}
  validation: {_target_: tests.tiny.Pictures, n: 30, first: 1000}
  transforms: {batch: [{_target_: drumbeat.data.Normalize, mean: [0.5], std: [0.25]}]}
phases: {only: {epochs: 2, optimizer: {_target_: torch.optim.SGD, lr: 0.1}}}
""",
}
"""What may depend on the number of ranks, by networks that train in a second: uneven parts, BatchNorm, dropout and
rounding; mixing, clipping, accumulation, averages, weights, logged values and phases; lengths; buffers that the next
forward pass reads."""


class Convolutions(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
                         nn.Linear(512, 2))


class Stateful(nn.Module):
    """Reads what its last forward pass has left: the estimates of a spectral norm, a mean, and a buffer that each pass
    replaces. One of two branches takes part in a pass, so each has no gradient in some parts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.parametrizations.spectral_norm(nn.Linear(64, 16))
        self.branches = nn.ModuleList(nn.Linear(16, 2) for _ in range(2))
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int16))
        self.mean: Tensor
        self.calls: Tensor

    def forward(self, pictures: Tensor) -> Tensor:
        hidden = self.layer(pictures.flatten(1)) - self.mean
        if self.training:
            self.mean.lerp_(hidden.detach().mean(0), 0.1)
            self.calls = self.calls + 1
        found: Tensor = self.branches[int(pictures.sum() > 0)](hidden) * (1 + 0.01 * self.calls)
        return found


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8, padding_idx=0)
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, words: Tensor) -> Tensor:
        found: Tensor = self.head(self.recurrent(self.embedding(words))[0].mean(1))
        return found


class Texts:
    """int64 [length] of 3 to 20 words, and whether most of them are high."""

    def __init__(self, *, n: int) -> None:
        self.lengths = [3 + 7 * index % 18 for index in range(n)]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        words = torch.randint(1, 30, (self.lengths[index],), generator=torch.Generator().manual_seed(index))
        return words, int(words.double().mean() > 15)


def padded(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return (nn.utils.rnn.pad_sequence([words for words, _ in samples], batch_first=True),
            torch.tensor([label for _, label in samples]))


def train_all(world: World, folder: str, workers: str) -> None:
    """Trains all cases on this rank, as its worker does."""
    prefer_determinism(deterministic=True, threads=1)
    for name, text in CASES.items():
        run = RunDir(Path(folder) / name / f"on-{world.size}")
        if world.is_main:
            run.path.mkdir(parents=True)
            loaded = load(write(run.path, name, text), [f"data.workers={workers}"])
            run.config.write_text(loaded.as_yaml())
            run.claim_attempt()
        world.share(None)
        train(run, world)


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(f"name: {name}\n{COMMON}\n{text}")
    return file


def train(run: RunDir, world: World) -> None:
    attempt = run.newest_attempt()
    assert attempt is not None
    config = load(run.config, []).config
    training = build(run, attempt, config, build_sets(config), world, threads=1, debug=False)
    finish(run, attempt, config, training, training.run())


def state(run: RunDir) -> dict[str, Any]:
    """The plain part of the newest checkpoint's training state."""
    newest = max(run.checkpoints.glob("step-*/state.json"))
    found = CheckpointState.require(newest)
    spans = [(span.phase, span.first_step, span.steps, span.samples, span.digest) for span in found.progress.ledger]
    return {"optimizer": found.optimizer, "scheduler": found.scheduler, "quanta": found.quanta, "ledger": spans}


@pytest.mark.slow
def test_the_bits_are_the_same_on_any_number_of_ranks(tmp_path: Path) -> None:
    for ranks, workers in ((1, 0), (2, 2), (3, 0), (4, 0), (6, 0)):
        on_ranks(ranks, train_all, tmp_path, workers)
    for name in CASES:
        one, *others = (RunDir(tmp_path / name / f"on-{ranks}") for ranks in (1, 2, 3, 4, 6))
        for other in others:
            assert differences(other, one, exact=True) == [], f"{name} {other.path.name}"
            assert state(other) == state(one)
