"""With virtual ranks a run has the same bits on any number of ranks and loader workers: weights, curves, metrics,
samples and the state that the next step depends on. Also if it is killed and resumed on another number of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Status
from drumbeat.configs.run.step_log import StepLog, first_difference
from drumbeat.trainers.virtual_ranks import Division
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.tiny import drumbeat, latest, write_config
from tests.trainers.any_width import train, unequal, write

COMMON = """
batch_size: 10
virtual_ranks: 6
evaluation: {batch_size: 7}
tracking: {every_steps: 1, images: 0}
checkpoints: {every_steps: 5}
launch: {gpus: 0}
"""
CASES = {
    "images": """
model: {_target_: tests.trainers.test_virtual_ranks.Stateful}
precision: bf16
data:
  train: {_target_: tests.tiny.Pictures, n: 34}
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
precision: fp32
micro_batch_size: 1
task:
  _target_: tests.trainers.tasks.test_logged.Terms
  loss: {_target_: torch.nn.CrossEntropyLoss, weight: {_target_: torch.tensor, data: [1.0, 3.0]}}
data:
  train: {_target_: tests.tiny.Pictures, n: 34}
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
precision: fp32
data:
  train: {_target_: tests.trainers.test_virtual_ranks.Texts, n: 34}
  validation: {_target_: tests.trainers.test_virtual_ranks.Texts, n: 20}
  collate_fn: {_target_: tests.trainers.test_virtual_ranks.padded}
  bucket_batches: 3
phases: {only: {epochs: 2, optimizer: {_target_: torch.optim.Adam, lr: 0.01}}}
""",
}
"""What may depend on the number of ranks, by networks that train in a second: uneven parts, rounding, BatchNorm,
dropout, and buffers that the next forward pass reads; mixing, clipping, accumulation, averages, weights, logged values
and phases; lengths of texts."""


class Shifted(nn.BatchNorm2d):
    """Reads its running statistics while it trains."""

    def forward(self, pictures: Tensor) -> Tensor:
        assert self.running_mean is not None
        return super().forward(pictures) + 0.1 * self.running_mean.clone()[:, None, None]


class Stateful(nn.Module):
    """Reads what its last forward pass has left: the estimates of a spectral norm, running statistics, a mean, a buffer
    that each pass replaces, and extra state. One of two branches takes part in a pass, so each has no gradient in some
    parts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), Shifted(8),
                                    nn.Dropout(0.3), nn.Flatten(),
                                    nn.utils.parametrizations.spectral_norm(nn.Linear(512, 16)))
        self.branches = nn.ModuleList(nn.Linear(16, 2) for _ in range(2))
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int16))
        self.mean: Tensor
        self.calls: Tensor
        self.scale = 1.0

    def get_extra_state(self) -> dict[str, float]:
        return {"scale": self.scale}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]

    def forward(self, pictures: Tensor) -> Tensor:
        hidden = self.layers(pictures).float() - self.mean
        if self.training:
            self.mean.lerp_(hidden.detach().mean(0), 0.1)
            self.calls = self.calls + 1
            self.scale = 0.9 * self.scale + 0.1 * float(hidden.detach().norm())
        found: Tensor = self.branches[int(pictures.sum() > 0)](hidden) * (1 + 0.01 * self.calls) / self.scale
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
    for name, text in CASES.items():
        run = RunDir(Path(folder, name, str(world.size)))
        if world.is_main:
            file = Path(folder, f"{name}.yaml")
            file.write_text(f"name: {name}\n{COMMON}\n{text}")
            write(run, file, [f"data.workers={workers}"])
        world.share(None)
        train(run, world)


@pytest.mark.slow
def test_the_bits_are_the_same_on_any_number_of_ranks(tmp_path: Path) -> None:
    for ranks, workers in ((1, 0), (2, 2), (4, 0), (6, 0)):
        on_ranks(ranks, train_all, tmp_path, workers)
    for name in CASES:
        one, *others = (RunDir(tmp_path / name / str(ranks)) for ranks in (1, 2, 4, 6))
        assert {f"{name} on {other.path.name}": unequal(other, one) for other in others} == {
            f"{name} on {ranks}": [] for ranks in (2, 4, 6)}
        logs = [StepLog.read(run) for run in (one, *others)]
        assert [first_difference(logs[0], log) for log in logs[1:]] == [None] * 3
        steps = [*logs[0].steps()]
        for log, ranks in zip(logs[1:], (2, 4, 6), strict=True):  # each rank has digests of its own gradients
            digests = [found.ranks for found in map(log.step, steps) if found]
            assert {len({*own}) for own in zip(*digests, strict=True)} == {len(steps)} and len(digests[0]) == ranks


def train_flipped(world: World, folder: str) -> None:
    """Two runs; in step 2 of one, rank 1 flips a bit in the gradient of its first part. It has two parts, and they are
    computed twice in the discarded pass, which finds the first quanta."""
    config = write_config(Path(folder))
    for name in ("plain", "flipped"):
        run = RunDir(Path(folder, name))
        if world.is_main:
            write(run, config, ["virtual_ranks=3", "micro_batch_size=null", "phases.finetune=null", "limit_batches=3",
                                f"model={{_target_: tests.tiny.Flips, file: {folder}/flip, at: 7, rank: 1}}"])
            if name == "flipped":
                Path(folder, "flip").touch()
        world.share(None)
        train(run, world)


@pytest.mark.slow
def test_the_step_log_says_which_rank_computed_something_else(tmp_path: Path) -> None:
    on_ranks(2, train_flipped, tmp_path)
    logs = [StepLog.read(RunDir(tmp_path / name)) for name in ("plain", "flipped")]
    assert (first_difference(*logs), logs[0].last) == (2, 3)
    (one, another), (same, other) = (found.ranks for log in logs if (found := log.step(2)))
    assert (one == same, another == other) == (True, False)


def straight(world: World, folder: str) -> None:
    run = RunDir(Path(folder, "straight"))
    write(run, write_config(Path(folder)), ["virtual_ranks=3"])
    train(run, world)


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_bits_on_more_ranks(tmp_path: Path) -> None:
    """SIGKILL to rank 1 of two in the second phase; resumed on three, whose computations have as many threads, although
    they have fewer cores each."""
    on_ranks(1, straight, tmp_path)
    config = write_config(tmp_path)
    drumbeat(tmp_path, str(config), "--procs", "2", "virtual_ranks=3", "launch.restarts=0",
             "launch.cpus_per_rank=null", "task._target_=tests.tiny.Fuse", f"task.folder={tmp_path}", "task.at=[45]",
             "task.rank=1", expect=1)
    run = latest(tmp_path)
    assert (tmp_path / "blown-0").exists() and Status.require(run.status).state == "failed"
    before = JobPlan.require(run.plan).topology
    drumbeat(tmp_path, "--resume", run.id, "--procs", "3")
    after = JobPlan.require(run.plan).topology
    assert (before.threads, after.threads, after.ranks_per_node) == (1, 1, 3)
    assert before.cpus_per_rank == max(1, len(os.sched_getaffinity(0)) // 2)
    assert unequal(run, RunDir(tmp_path / "straight")) == []


def test_the_parts_of_a_rank() -> None:
    """One for each rank without virtual ranks; with them their shares, whose sizes differ by one at most."""
    def own(rank: int, size: int, virtual: int | None) -> list[int]:
        world = World(rank=rank, local_rank=rank, size=size, device=torch.device("cpu"))
        return [*Division.of(world, virtual).own]

    assert [own(rank, 3, None) for rank in range(3)] == [[0], [1], [2]]
    assert [own(rank, 4, 6) for rank in range(4)] == [[0], [1, 2], [3], [4, 5]]
    assert own(0, 1, 6) == [0, 1, 2, 3, 4, 5]
