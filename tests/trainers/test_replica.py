"""What is called in a step: compiled, and on several ranks, also if not every step uses all parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.data.loader import Batch
from drumbeat.data.order import shard
from drumbeat.trainers.build import build_forward
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.replica import compiled, wrap
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


def trained(world: World, micro_batch_size: int | str | None, **changes: Any) -> dict[str, Tensor]:
    """The weights after six steps of AdamW, which decays the weights that have a gradient, if it is 0, too."""
    config = build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 8, "micro_batch_size": micro_batch_size, "model": {"_target_": "x"},
        "precision": "fp32", "find_unused_parameters": True,
        "phases": {"only": {"epochs": 1, "optimizer": {
            "_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.5}}}, **changes})])
    task = Regression()
    runner = build_phase_runner(config, 0, Experts(), task, world, build_forward(config, world.device))
    mine = shard(8, world.rank, world.size)
    indices = torch.arange(mine.start, mine.stop)
    for number, (rows, routes) in enumerate(zip(ROWS, ROUTES, strict=True)):
        inputs = torch.stack([rows, torch.tensor(routes).float()], 1)[mine.start:mine.stop]
        runner.backward([Batch(inputs, inputs[:, :1] ** 2, indices, indices, indices < 0)], number)
        assert runner.settle(runner.update())
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def on_two(world: World, folder: str) -> None:
    for micro in (None, 1, "auto"):
        found = trained(world, micro)
        if world.is_main:
            save_file(found, f"{folder}/{micro}.safetensors")


def test_parameters_that_some_ranks_or_none_use_are_trained_as_on_one_rank(tmp_path: Path) -> None:
    on_ranks(2, on_two, tmp_path)
    for micro in (None, 1, "auto"):
        expected = trained(ALONE, micro)
        for name, value in load_file(tmp_path / f"{micro}.safetensors").items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def compiled_on_two(world: World, folder: str) -> None:
    for name, arguments in (("plain", {}), ("compiled", {"backend": "aot_eager"})):
        found = trained(world, 3, compile=arguments)
        if world.is_main:
            save_file(found, f"{folder}/{name}.safetensors")


@pytest.mark.slow
def test_a_compiled_model_is_trained_and_has_the_names_of_the_plain_one(tmp_path: Path) -> None:
    """Here by a backend that does not fuse operations, so with the same bits."""
    on_ranks(2, compiled_on_two, tmp_path)
    plain, same = (load_file(tmp_path / f"{name}.safetensors") for name in ("plain", "compiled"))
    assert weights_sha256(plain) == weights_sha256(same)
    model = nn.Linear(1, 1)
    replica = wrap(model, ALONE, arguments={"backend": "aot_eager"})
    assert replica is not model and [*replica.parameters()] == [*model.parameters()]


@pytest.mark.parametrize(("arguments", "reason"), [({"mode": "fastest"}, "Unrecognized mode=fastest"),
                                                   ({"speed": 1}, "unexpected keyword argument 'speed'")])
def test_what_torch_does_not_take_is_an_error(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(PreflightError) as caught:
        compiled(nn.Identity(), arguments)
    (fault,) = caught.value.faults
    assert fault.where == "compile" and fault.what.startswith("torch.compile does not take these arguments: ")
    assert reason in fault.what


def wrapped(world: World) -> None:
    model = nn.BatchNorm1d(2)
    model.register_buffer("small", torch.ones(1, dtype=torch.int16))
    assert isinstance(wrap(model, world), DistributedDataParallel)


def test_several_ranks_are_wrapped_with_buffers_of_any_type() -> None:
    on_ranks(2, wrapped)
    model = nn.Linear(1, 1)
    assert wrap(model, ALONE) is model
