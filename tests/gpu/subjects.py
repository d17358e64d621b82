"""A task that reports the state of its rank, and a network that needs too much memory."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drumbeat.trainers.tasks import Classification
from tests.tiny import Net

CONFIG = """
name: reporting
batch_size: 12
precision: fp32
model: {_target_: tests.tiny.Net}
task: {_target_: tests.gpu.subjects.Reporting}
data:
  train: {_target_: tests.tiny.Pictures, n: 240}
  validation: {_target_: tests.tiny.Pictures, n: 30, first: 1000}
  transforms: {batch: [{_target_: drumbeat.data.Normalize, mean: [0.5], std: [0.25]}]}
  workers: 0
phases:
  only:
    epochs: 1
    clip_norm: 1.0
    optimizer: {_target_: torch.optim.Adam, lr: 1e-2, fused: true}
    scheduler: {_target_: torch.optim.lr_scheduler.CosineAnnealingLR, T_max: 20}
evaluation: {batch_size: 8}
tracking: {every_steps: 1000, images: 0}
launch: {cpus_per_rank: 1}
"""
"""20 steps. Nothing is logged, saved or evaluated before the last one."""

FIRST, LAST = 6, 16
"""The losses, counted in the rank, between which synchronisations are counted: 10 whole steps of the loop, each from
the middle of a forward pass to the middle of the next."""

SHARE = 0.15
"""The fraction of the device's memory that `Greedy` allocates for each sample."""


class Reporting(Classification):
    """Classification that writes `folder`/report.json: the device, whether CUDA was used before this rank was forked,
    the error of float32 arithmetic, and where the host waited for the GPU in 10 steps of training."""

    def __init__(self, *, folder: str, **options: Any) -> None:
        super().__init__(**options)
        self.file = Path(folder) / "report.json"
        self.calls = 0
        self.catching = warnings.catch_warnings(record=True)
        self.report: dict[str, Any] = {}

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.requires_grad:
            self.calls += 1
            if self.calls == FIRST:
                self._begin(outputs)
            if self.calls == LAST:
                self._end(outputs.device)
        return super().losses(outputs, targets)

    def _begin(self, outputs: Tensor) -> None:
        """Counts synchronisations from now on, including one on purpose."""
        self.report = {"device": str(outputs.device), "in_bad_fork": torch.cuda._is_in_bad_fork(),
                       "fp32_errors": fp32_errors(outputs.device)}
        warn_of_synchronisations(outputs.device, True)  # torch's one-time warning is not counted
        self.caught: Any = self.catching.__enter__()
        warnings.simplefilter("always")
        warn_of_synchronisations(outputs.device, True)
        outputs.detach().sum().item()
        self.report["on_purpose"] = len(self.caught)

    def _end(self, device: torch.device) -> None:
        warn_of_synchronisations(device, False)
        self.catching.__exit__()
        places = [f"{one.filename}:{one.lineno}: {one.message}" for one in self.caught]
        self.report["synchronisations"] = places[self.report["on_purpose"]:]
        self.file.write_text(json.dumps(self.report))


class Greedy(Net):
    """A network that allocates a fraction of the device's memory for each training sample."""

    def forward(self, pictures: Tensor) -> Tensor:
        if self.training:
            share = int(SHARE * memory_of(pictures.device))
            torch.empty(share * len(pictures), dtype=torch.uint8, device=pictures.device)
        return super().forward(pictures)


def memory_of(device: torch.device) -> int:
    """All the memory of a device, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def warn_of_synchronisations(device: torch.device, on: bool) -> None:
    """Makes torch warn of each call in which the host waits for the GPU. On the CPU there are none."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("warn" if on else "default")


def fp32_errors(device: torch.device) -> dict[str, float]:
    """The largest error of a convolution and of a product of matrices in float32, in units of the result's root mean
    square. With operands rounded to TF32 it is 1.4e-3 for either, and 2e-6 without (both computed on a CPU)."""
    generator = torch.Generator().manual_seed(0)
    images, kernels, left, right = (torch.randn(*shape, generator=generator).to(device) for shape in (
        (4, 64, 16, 16), (64, 64, 3, 3), (256, 512), (512, 256)))
    with torch.no_grad():
        pairs = {"convolution": (torch.nn.functional.conv2d(images, kernels),
                                 torch.nn.functional.conv2d(images.double(), kernels.double())),
                 "matrix product": (left @ right, left.double() @ right.double())}
        return {name: float((found - exact).abs().max() / exact.square().mean().sqrt())
                for name, (found, exact) in pairs.items()}
