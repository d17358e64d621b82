"""An optimizer that evaluates other weights than it trains: how often a run saves and evaluates does not change it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from drumbeat.trainers.averaging import Averaging, switch, switchable
from drumbeat.trainers.checkpoints.state import parameter_names, weights_sha256
from tests.trainers.in_process import attempted, new_run
from tests.trainers.own_optimizers import ScheduleFree

FREE = "{_target_: tests.trainers.own_optimizers.ScheduleFree, lr: 0.1}"
PHASES = [f"phases.{name}.{key}" for name in ("head", "all") for key in (f"optimizer={FREE}", "scheduler={}")]


def stepped() -> tuple[nn.Linear, ScheduleFree, Averaging]:
    torch.manual_seed(0)
    model = nn.Linear(30, 20)
    optimizer = ScheduleFree(model.parameters(), lr=0.1)
    optimizer.train()
    averaging = Averaging(optimizer, [*model.parameters()], parameter_names(model))
    for _ in range(3):
        model(torch.rand(4, 30)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer, averaging


def test_the_trained_weights_come_back_to_the_bit() -> None:
    """Which the optimizer alone does not do: that rounds."""
    model, optimizer, averaging = stepped()
    before = weights_sha256(model.state_dict())
    with averaging.averaged():
        inside = weights_sha256(model.state_dict())
        assert set(averaging.kept) == {"weight/trained", "bias/trained"}
    assert (weights_sha256(model.state_dict()) == before) and inside != before
    assert averaging.kept == {}
    for _ in range(20):
        switch(optimizer, "eval")
        switch(optimizer, "train")
    assert weights_sha256(model.state_dict()) != before


def test_nothing_happens_with_another_optimizer() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters())
    averaging = Averaging(optimizer, [*model.parameters()], parameter_names(model))
    with averaging.averaged():
        assert averaging.kept == averaging.trained == {}
    assert switchable(optimizer) == []


@pytest.mark.parametrize("stop", [2, 5, 6, 9])
def test_a_run_is_the_same_after_a_stop_and_however_often_it_saves(tmp_path: Path, stop: int) -> None:
    """Within a phase, at its end, and in the next one, which begins with the averaged weights."""
    straight, _ = attempted(new_run(tmp_path / "straight"), None, [*PHASES, "checkpoints.every_steps=100"])
    run = new_run(tmp_path / "stopped")
    attempted(run, stop, [*PHASES, "checkpoints.every_steps=1"])
    resumed, _ = attempted(run, None, [*PHASES, "checkpoints.every_steps=1"])
    assert weights_sha256(resumed.model.state_dict()) == weights_sha256(straight.model.state_dict())
    last = load_file(run.checkpoints / "last" / "model.safetensors")
    assert weights_sha256(last) == weights_sha256(straight.model.state_dict())
    assert resumed.progress.best == straight.progress.best
