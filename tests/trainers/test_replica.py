"""A model with parameters that not every step uses: the ranks train it as one rank does."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.data.loader import Batch
from drumbeat.data.order import shard
from drumbeat.trainers.build import build_forward
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.replica import wrap
from drumbeat.trainers.tasks import Regression
from drumbeat.trainers.world import World
from tests.ranks import on_ranks

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
ROWS = torch.linspace(-1, 1, 6 * 8).reshape(6, 8)
ROUTES = [[0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0],
          [1, 0, 0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1]]
"""The expert of each sample of each step. The second one is used by no rank, by one, by the other, by both."""


class Experts(nn.Module):
    """A number and its route [N, 2] -> [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.experts = nn.ModuleList(nn.Linear(1, 1) for _ in range(2))

    def forward(self, rows: Tensor) -> Tensor:
        outputs = rows[:, :1] * 0
        for number, expert in enumerate(self.experts):
            if (mine := rows[:, 1] == number).any():
                outputs[mine] = expert(rows[mine, :1])
        return outputs


def trained(world: World, micro_batch_size: int | None) -> dict[str, Tensor]:
    """The weights after six steps of AdamW, which decays the weights that have a gradient, if it is 0, too."""
    config = build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 8, "micro_batch_size": micro_batch_size, "model": {"_target_": "x"},
        "precision": "fp32", "find_unused_parameters": True,
        "phases": {"only": {"epochs": 1, "optimizer": {
            "_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.5}}}})])
    task = Regression()
    runner = build_phase_runner(config, 0, Experts(), task, world, build_forward(config, world.device))
    mine = shard(8, world.rank, world.size)
    indices = torch.arange(mine.start, mine.stop)
    for number, (rows, routes) in enumerate(zip(ROWS, ROUTES, strict=True)):
        inputs = torch.stack([rows, torch.tensor(routes).float()], 1)[mine.start:mine.stop]
        runner.backward(Batch(inputs, inputs[:, :1] ** 2, indices, indices, indices < 0), number)
        assert runner.settle(runner.update())
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def on_two(world: World, folder: str) -> None:
    for micro in (None, 1):
        found = trained(world, micro)
        if world.is_main:
            save_file(found, f"{folder}/{micro}.safetensors")


def test_parameters_that_some_ranks_or_none_use_are_trained_as_on_one_rank(tmp_path: Path) -> None:
    on_ranks(2, on_two, tmp_path)
    for micro in (None, 1):
        expected = trained(ALONE, micro)
        for name, value in load_file(tmp_path / f"{micro}.safetensors").items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def wrapped(world: World) -> None:
    model = nn.BatchNorm1d(2)
    model.register_buffer("small", torch.ones(1, dtype=torch.int16))
    assert isinstance(wrap(model, world), DistributedDataParallel)


def test_several_ranks_are_wrapped_with_buffers_of_any_type() -> None:
    on_ranks(2, wrapped)
    model = nn.Linear(1, 1)
    assert wrap(model, ALONE) is model
