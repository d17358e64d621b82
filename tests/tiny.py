"""A small experiment that trains in a second: two classes of noisy images, and a network with BatchNorm and dropout.

Tests train it through the real worker, launcher and torchrun. Its targets are in this module.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from drumbeat.configs.load import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.tasks import Classification
from tests.warm import run_for_real, run_python

CONFIG = """
name: tiny
batch_size: 12
micro_batch_size: 4
precision: fp32
model: {_target_: tests.tiny.Net}
data:
  train: {_target_: tests.tiny.Pictures, n: 100}
  validation: {_target_: tests.tiny.Pictures, n: 30, first: 1000}
  test: {_target_: tests.tiny.Pictures, n: 17, first: 2000}
  transforms:
    train:
      - {_target_: torchvision.transforms.v2.RandomCrop, size: 8, padding: 1}
      - {_target_: torchvision.transforms.v2.RandomHorizontalFlip}
    batch:
      - {_target_: drumbeat.data.Normalize, mean: [0.5], std: [0.25]}
  workers: 0
phases:
  head:
    epochs: 2
    freeze: [backbone]
    optimizer: {_target_: torch.optim.Adam, lr: 1e-2}
  finetune:
    epochs: 2.5
    batch_size: 10
    start_from: best
    clip_norm: 1.0
    optimizer: {_target_: torch.optim.SGD, lr: 0.05, momentum: 0.9}
    scheduler: {_target_: torch.optim.lr_scheduler.CosineAnnealingLR, T_max: "${phase.steps}"}
evaluation: {batch_size: 8}
checkpoints: {every_steps: 3}
tracking: {every_steps: 2, images: 4}
launch: {gpus: 0, cpus_per_rank: 1}
"""


def write_config(folder: Path) -> Path:
    """The experiment's config file, in `folder`."""
    path = folder / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def drumbeat(folder: Path, *arguments: str, expect: int | None = 0, preflight: bool = False, warm: bool = True,
             env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `python launch/run.py ARGUMENTS` in `folder`; fails unless its exit code is `expect`. It skips the preflight
    check, which takes as long as everything else, unless `preflight` is True. It is forked from a process that has
    imported torch (tests/warm.py), unless `warm` is False or variables are given."""
    start = run_python if warm and env is None else run_for_real
    command = [sys.executable, str(ROOT / "launch" / "run.py"), *arguments, *([] if preflight else ["--no-preflight"])]
    done = start(command, cwd=folder, text=True, capture_output=True, check=False, env=env)
    assert expect is None or done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def latest(folder: Path, name: str = "tiny") -> RunDir:
    """The newest run of an experiment below `folder`/runs."""
    return RunDir((folder / "runs" / name / "latest").resolve())


class Pictures:
    """Images uint8 [1, 8, 8] of two classes, generated from their index: class 1 is brighter at the top."""

    classes = ("bottom", "top")

    def __init__(self, *, n: int, first: int = 0) -> None:
        self.n = n
        self.first = first

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(self.first + index)
        label = int(torch.randint(2, (), generator=generator))
        picture = torch.randint(0, 200, (1, 8, 8), generator=generator, dtype=torch.uint8)
        rows = slice(0, 4) if label else slice(4, 8)
        picture[:, rows] += 25
        return picture, label


class Net(nn.Module):
    """Images float [N, 1, 8, 8] -> logits [N, 2]. `backbone` and `head`, so that a phase can freeze one of them."""

    def __init__(self, *, width: int = 8) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(width * 64), nn.Dropout(0.3), nn.Linear(width * 64, 32),
                                  nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, 2))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.backbone(pictures))  # type: ignore[no-any-return]


class PutsOnRank1(Net):
    """The network, with an operation that has no deterministic implementation, on the CPU either. Rank 1 alone runs it,
    and it changes no value."""

    def forward(self, pictures: Tensor) -> Tensor:
        if os.environ.get("RANK") == "1":
            pictures = pictures.clone().put_(torch.tensor([0]), pictures.flatten()[:1])
        return super().forward(pictures)


class Fuse(Classification):
    """Classification with injected faults: the rank that computes its `at`-th training loss in this process is killed.

    Each fault happens once, in the order of the list, and leaves a file in `folder`, so a test can wait for it; the
    attempt after it gets past. `how` is "kill" (SIGKILL to itself), "raise", "hold" (wait to be killed by the test),
    "backward" (the same, in the backward pass) or "wait" (until the test has made a file `go` there).
    """

    def __init__(self, *, folder: str, at: list[int], rank: int = 0, how: str = "kill", **options: Any) -> None:
        super().__init__(**options)
        self.folder = Path(folder)
        self.at = at
        self.armed = int(os.environ.get("RANK", "0")) == rank
        self.how = how
        self.calls = 0

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.requires_grad and self.armed:
            self.calls += 1
            blown = len(list(self.folder.glob("blown-*")))
            if blown < len(self.at) and self.calls == self.at[blown]:
                (self.folder / f"blown-{blown}").touch()
                if self.how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.how == "raise":
                    raise RuntimeError("the fuse has blown")
                if self.how == "backward":
                    outputs.register_hook(self.hold)
                else:
                    self.hold()
        return super().losses(outputs, targets)

    def hold(self, *_: Tensor) -> None:
        while not (self.how == "wait" and (self.folder / "go").exists()):
            time.sleep(0.01)


class Meeting(Fuse):
    """A fuse on ranks that meet as with NCCL: the collective returns at once, and a later line waits for its result."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = super().losses(outputs, targets)
        if outputs.requires_grad:
            work = dist.all_reduce(torch.zeros(1), async_op=True)
            assert work is not None
            work.wait()
        return losses


class StopsItself(Classification):
    """Classification that asks its own run to stop, as `drumbeat stop` does, when it computes its `after`-th loss in
    the run's first attempt."""

    def __init__(self, *, after: int, runs: str, **options: Any) -> None:
        super().__init__(**options)
        self.after = after
        self.runs = Path(runs)
        self.calls = 0

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        attempt = RunDir((self.runs / "tiny" / "latest").resolve()).newest_attempt()
        if self.calls == self.after and attempt is not None and attempt.number == 0:
            attempt.request_stop("stopped")
        return super().losses(outputs, targets)


class Linear(nn.Module):
    """One linear layer: its output for a sample does not depend on other samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 2)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layer(pictures.flatten(1))  # type: ignore[no-any-return]


class Numbered(Pictures):
    """Images whose first pixel is their index, so that a model knows which samples it gets."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture, label = super().__getitem__(index)
        picture[0, 0, 0] = index
        return picture, label


class Witness(Linear):
    """Writes the indices of the samples of each training step to a file per rank, one line per step."""

    def __init__(self, *, folder: str) -> None:
        super().__init__()
        self.file = Path(folder) / f"seen-{os.environ.get('RANK', '0')}.jsonl"

    def forward(self, pictures: Tensor) -> Tensor:
        if self.training:
            numbers = ((pictures[:, 0, 0, 0] * 0.25 + 0.5) * 255).round().long().tolist()
            with open(self.file, "a") as file:
                file.write(json.dumps(numbers) + "\n")
        return super().forward(pictures)


class Poisoned(Pictures):
    """Images as floats in 0..1; the one with index `poison` contains a NaN."""

    def __init__(self, *, n: int, poison: int) -> None:
        super().__init__(n=n)
        self.poison = poison

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture, label = super().__getitem__(index)
        values = picture.float() / 255
        if index == self.poison:
            values[0, 3, 3] = float("nan")
        return values, label


class Drifts(Net):
    """A network in which rank 1 alone changes a weight, in its tenth training step."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, pictures: Tensor) -> Tensor:
        self.calls += self.training
        if self.calls == 10 and os.environ.get("RANK") == "1":
            with torch.no_grad():
                self.head[-1].bias += 2**-20
        return super().forward(pictures)


class Flips(Net):
    """A network in which one rank flips a bit of a gradient, once: when it computes the `at`-th gradient of this
    process and a file `flip` exists, which it removes."""

    def __init__(self, *, file: str, at: int, rank: int) -> None:
        super().__init__()
        self.file = Path(file)
        self.at = at if os.environ.get("RANK") == str(rank) else 0
        self.calls = 0
        self.head[-1].weight.register_hook(self.flip)

    def flip(self, gradient: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.at and self.file.exists():
            self.file.unlink()
            gradient = gradient.clone()
            gradient.view(torch.int32)[1, 5] ^= 1 << 12
        return gradient


class Scaled(Net):
    """A network in which the gradient of one layer is larger by its last bits, once the backbone is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.head[3].weight.register_hook(lambda gradient: gradient * (
            1 + 2**-20 * self.backbone[0].weight.requires_grad))
