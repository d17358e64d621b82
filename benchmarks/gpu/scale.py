"""The size of the measurements: resnet50_xray on a GPU, or a toy model on a CPU to test the script."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.work import Work


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of the work, and the number of measurements."""

    device: torch.device
    work: Work
    """Its `steps` are those of a whole run, and `samples` those of an epoch, at whose end a checkpoint is saved."""
    threads: int
    """CPU threads of a rank."""
    loader_workers: int
    pause: float
    """Seconds that a batch of a whole run takes: at toy size a run must last long enough to be killed."""
    warm_up: int
    """Steps before a loop is timed."""
    steps: int
    """Steps in one reading of a loop."""
    rounds: int
    """Readings of each loop."""
    kills: int
    seed: int
    """Seed of the steps at which the rank is killed: chosen so that they are early enough in such a short run."""
    megabytes: tuple[int, ...]
    """The sizes of the saves."""
    patience: int = 1
    """How many times longer a part may take than it does on a GPU: a test on a busy machine waits longer."""

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, act: Callable[[], object]) -> float:
        """Seconds that an act takes on host and device together."""
        self.synchronize()
        began = time.perf_counter()
        act()
        self.synchronize()
        return time.perf_counter() - began


SCALES = {
    "full": Scale(
        device=torch.device("cuda", 0), threads=8, loader_workers=1, pause=0.0, warm_up=8, steps=20, rounds=3, kills=2,
        seed=88, megabytes=(307, 4000),
        work=Work(pixels=256, channels=1, samples=50 * 128, batch=128, steps=200, every=10,
                  model={"_target_": "drumbeat.models.transfer.ResNet50ConcatPool", "classes": 2})),
    "smoke": Scale(
        device=torch.device("cpu"), threads=1, loader_workers=0, pause=0.01, warm_up=1, steps=1, rounds=1, kills=1,
        seed=206, megabytes=(1, 2), patience=4,
        work=Work(pixels=32, channels=3, samples=50 * 4, batch=4, steps=400, every=10,
                  model={"_target_": "benchmarks.work.SmallCNN"})),
}
"""One loader worker on a GPU: batches are in memory, and more workers would fill a container's 64 MB of /dev/shm."""
