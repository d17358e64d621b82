"""The workloads of the benchmarks: random images in memory, a small network, and the two phases of ResNet-50."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.data.memory import Arrays
from drumbeat.data.order import Integers


@dataclass(frozen=True, kw_only=True)
class Work:
    """The parameters of one training job. `batch` is the global batch size."""

    pixels: int
    channels: int
    samples: int
    batch: int
    steps: int
    every: int
    """Steps between two time measurements."""
    model: dict[str, Any]
    freeze: tuple[str, ...] = ()


DISTINCT = 256
"""The number of different images in a dataset of repeated ones."""

WORKS = {
    "small CNN, 32 px, batch 128": Work(
        pixels=32, channels=3, samples=4096, batch=128, steps=400, every=20,
        model={"_target_": "benchmarks.work.SmallCNN"}),
    "start-up: one step of the small CNN": Work(
        pixels=32, channels=3, samples=4096, batch=128, steps=1, every=1,
        model={"_target_": "benchmarks.work.SmallCNN"}),
    "ResNet-50 head, 256 px, batch 32": Work(
        pixels=256, channels=1, samples=128, batch=32, steps=16, every=4, freeze=("backbone",),
        model={"_target_": "drumbeat.models.ResNet50ConcatPool", "classes": 2}),
    "ResNet-50 finetune, 256 px, batch 32": Work(
        pixels=256, channels=1, samples=128, batch=32, steps=6, every=2,
        model={"_target_": "drumbeat.models.ResNet50ConcatPool", "classes": 2}),
}


def images(*, pixels: int, channels: int, samples: int) -> Arrays:
    """Random uint8 images [samples, channels, pixels, pixels] of two classes."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (samples, channels, pixels, pixels), dtype=torch.uint8, generator=generator)
    return Arrays(inputs, torch.randint(2, (samples,), generator=generator))


class Repeated(Arrays):
    """A dataset of any size that repeats a few samples. A batch takes `pause` seconds."""

    def __init__(self, few: Arrays, samples: int, pause: float) -> None:
        super().__init__(few.inputs, few.targets)
        self.samples = samples
        self.pause = pause

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return super().__getitem__(index % len(self.inputs))

    def fetch(self, indices: Integers) -> tuple[Tensor, Tensor]:
        time.sleep(self.pause)
        return super().fetch(indices % len(self.inputs))


def repeated_images(*, pixels: int, channels: int, samples: int, pause: float = 0.0) -> Repeated:
    """Like `images`, but created quickly, so that the start of a run does not include creating its data."""
    return Repeated(images(pixels=pixels, channels=channels, samples=min(samples, DISTINCT)), samples,
                    pause)


class SmallCNN(nn.Module):
    """Three convolutions with BatchNorm, and two linear layers: images float [N, 3, 32, 32] -> logits [N, 2]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 2))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers(pictures)  # type: ignore[no-any-return]
