"""One training step of any model, task and batch on this rank's shard, and torch's own gradients of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.data.loader import Batch
from drumbeat.data.order import shard
from drumbeat.data.structure import rows
from drumbeat.trainers.build import build_forward
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.model_and_task import with_task
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.world import World

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
RATE = 0.5


def runner_of(model: nn.Module, task: Any, *, batch_size: int, world: World = ALONE, largest: int | None = None,
              precision: str = "fp32", mix: bool = False) -> PhaseRunner:
    """SGD on the model and on what is trained of the task."""
    config = build_config([Layer(origin="test", values={
        "name": "x", "batch_size": batch_size, "micro_batch_size": largest, "model": {"_target_": "x"},
        "precision": precision, "data": {"mix": {"_target_": "drumbeat.data.Mixup"} if mix else {}},
        "phases": {"only": {"epochs": 1, "optimizer": {"_target_": "torch.optim.SGD", "lr": RATE}}}})])
    return build_phase_runner(config, 0, with_task(model, task), task, world, build_forward(config, world.device))


def step(model: nn.Module, task: Any, inputs: Any, targets: Any, n: int, **options: Any
         ) -> tuple[float, dict[str, Tensor]]:
    """This rank's part of the loss of a batch of n samples, and the gradients by the names of a state dict, from the
    change of the parameters."""
    world = options.get("world", ALONE)
    one = runner_of(model, task, batch_size=n, **options)
    mine = shard(n, world.rank, world.size)
    indices = torch.arange(mine.start, mine.stop)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    loss = one.backward([Batch(rows(inputs, mine, n), rows(targets, mine, n), indices, indices, indices < 0)], 0)
    assert one.settle(one.update())
    return float(loss), {name: (before[name] - value) / RATE for name, value in one.model.state_dict().items()}


def torchs(loss: Callable[[], Tensor], named: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """The same from torch, of a loss of the whole batch."""
    value = loss()
    return float(value.detach()), dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True))


def assert_same(parts: list[tuple[float, dict[str, Tensor]]], expected: tuple[float, dict[str, Tensor]],
                rel: float = 1e-5) -> None:
    """The steps of all ranks have torch's loss and gradients."""
    assert abs(sum(loss for loss, _ in parts) - expected[0]) <= rel * abs(expected[0])
    for _, gradients in parts:
        for name, reference in expected[1].items():
            torch.testing.assert_close(gradients[name], reference, atol=rel, rtol=rel)
