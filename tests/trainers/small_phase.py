"""A phase of a small network and its steps, for the tests of what computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.schema import Config
from drumbeat.data.loader import Batch
from drumbeat.trainers.build import build_forward
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.tasks import Classification, Task
from drumbeat.trainers.world import World

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
POINTS = torch.randn(7, 3, generator=torch.Generator().manual_seed(2))
KEPT = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])


def config(*, mix: bool = False, optimizer: str = "torch.optim.SGD",
           options: Mapping[str, float] = MappingProxyType({}), **values: Any) -> Config:
    return build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 5, "model": {"_target_": "x"}, "precision": "fp32",
        "data": {"mix": {"_target_": "drumbeat.data.Mixup"} if mix else {}},
        "phases": {"only": {"epochs": 1, "optimizer": {"_target_": optimizer, "lr": 0.1, **options}}}, **values})])


def runner(*, model: Callable[[], nn.Module] = lambda: nn.Linear(3, 4), task: Task | None = None, world: World = ALONE,
          largest: int | None = None, **values: Any) -> PhaseRunner:
    torch.manual_seed(0)
    made = config(micro_batch_size=largest, **values)
    return build_phase_runner(made, 0, model(), task or Classification(), world, build_forward(made, world.device))


def take(one: PhaseRunner, samples: Batch, step: int) -> tuple[Tensor, bool]:
    """A step as the loop takes it: its loss, and whether it was taken."""
    loss = one.backward([samples], step)
    return loss, one.settle(one.update())


def batch(targets: Any) -> Batch:
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    return Batch(inputs, targets, torch.arange(5), torch.arange(5), torch.zeros(5, dtype=torch.bool))


OWN, PARTNER = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([3, 3, 1, 0, 2])
MIXED = {"own": OWN, "partner": PARTNER, "kept": KEPT}
