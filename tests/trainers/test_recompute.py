"""Activations that are computed again: the same bits as without, and less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.commands.preflight import preflight
from drumbeat.trainers.recompute import recompute, recomputed
from tests.tiny import write_config
from tests.trainers.in_process import attempted, new_run


class Block(nn.Module):
    """All that a second pass could do twice: statistics, a power iteration, dropout, and a buffer that is replaced."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(spectral_norm(nn.Linear(4, 4)), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, rows: Tensor) -> Tensor:
        Block.calls += self.training
        self.mean = 0.9 * self.mean + 0.1 * rows.detach().mean(0)
        return rows + self.layers(rows) + self.mean  # type: ignore[no-any-return]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(4, 3)

    def forward(self, rows: Tensor) -> Tensor:
        for block in self.blocks:
            rows = block(rows)
        return self.head(rows)  # type: ignore[no-any-return]


MODEL = ["model={_target_: tests.trainers.test_recompute.Net}", "phases.all=null", "phases.head.optimizer.lr=0.05"]


@pytest.mark.parametrize("changes", [[], ["micro_batch_size=2"]])
def test_a_run_has_the_same_bits_as_without(tmp_path: Path, changes: list[str]) -> None:
    found, calls = [], []
    for chosen in ("[]", "[blocks]"):
        Block.calls = 0
        training, losses = attempted(new_run(tmp_path / chosen), None, [*MODEL, *changes, f"recompute={chosen}"])
        found.append((losses, weights_sha256(training.model.state_dict()), training.progress.best))
        calls.append(Block.calls)
    assert found[0] == found[1]
    assert calls[1] == 2 * calls[0]


def test_a_resume_has_the_same_bits(tmp_path: Path) -> None:
    changes = [*MODEL, "recompute=[{type: tests.trainers.test_recompute.Block}]"]
    straight, _ = attempted(new_run(tmp_path / "straight"), None, changes)
    stopped = new_run(tmp_path / "stopped")
    attempted(stopped, 2, changes)
    resumed, _ = attempted(stopped, None, changes)
    assert weights_sha256(resumed.model.state_dict()) == weights_sha256(straight.model.state_dict())


@pytest.mark.parametrize("chosen", [["blocks"], ["blocks.*"], ["blocks.0", "blocks.1"], [
    {"type": "tests.trainers.test_recompute.Block"}, "blocks.0.layers"]])
def test_the_outermost_modules_that_are_called(chosen: list[Any]) -> None:
    model = Net()
    assert recomputed(model, chosen) == [*model.blocks]


def test_less_is_kept() -> None:
    def kept(chosen: list[Any]) -> int:
        model, sizes = Net(), []
        recompute(model, chosen)
        recompute(model, chosen)
        with torch.autograd.graph.saved_tensors_hooks(lambda one: sizes.append(one.numel()) or one, lambda one: one):
            model(torch.randn(64, 4, requires_grad=True))
        return sum(sizes)

    assert kept(["blocks"]) < kept([]) / 3


def test_faults_before_the_run(tmp_path: Path) -> None:
    for change, what in ((["recompute=[nothing.*]"], "no module or parameter of the model fits 'nothing.*'"),
                         (["recompute=[backbone]", "compile={mode: default}"],
                          "recompute and compile do not work together")):
        with pytest.raises(PreflightError) as caught:
            preflight(load(write_config(tmp_path), change).config)
        assert what in [one.what for one in caught.value.faults]
    preflight(load(write_config(tmp_path), ["recompute=[backbone]"]).config)
