"""Weights that are averaged are evaluated, and others trained: how often a run saves and evaluates changes neither."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from drumbeat.trainers.averaging import Averaging, switch, switchable
from drumbeat.trainers.checkpoints.state import weights_sha256
from tests.trainers.in_process import attempted, new_run
from tests.trainers.own_optimizers import ScheduleFree

FREE = "{_target_: tests.trainers.own_optimizers.ScheduleFree, lr: 0.1}"
PHASES = [f"phases.{name}.{key}" for name in ("head", "all") for key in (f"optimizer={FREE}", "scheduler={}")]


def stepped() -> tuple[nn.Linear, ScheduleFree, Averaging]:
    torch.manual_seed(0)
    model = nn.Linear(30, 20)
    optimizer = ScheduleFree(model.parameters(), lr=0.1)
    optimizer.train()
    averaging = Averaging(optimizer, model)
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
    averaging = Averaging(optimizer, model)
    with averaging.averaged():
        assert averaging.kept == averaging.trained() == {}
    assert switchable(optimizer) == []


def test_numbers_of_batches_are_not_averaged() -> None:
    """An average of 0 to 5 batches is none of these; a counter that does not move stays what it is."""
    model = nn.BatchNorm1d(3)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    averaging = Averaging(torch.optim.SGD(model.parameters()), model, average)
    for _ in range(5):
        model(torch.rand(4, 3))
        averaging.update()
    assert average.module.num_batches_tracked == model.num_batches_tracked == 5
    assert not torch.equal(average.module.running_mean, model.running_mean)


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


EMA = ("{_target_: torch.optim.swa_utils.AveragedModel, use_buffers: true, "
       "multi_avg_fn: {_target_: torch.optim.swa_utils.get_ema_multi_avg_fn, decay: 0.7}}")
SWA = "{_target_: torch.optim.swa_utils.AveragedModel, use_buffers: true}"
AVERAGES = {"ema": [f"phases.{name}.average={EMA}" for name in ("head", "all")],
            "every second": [f"phases.head.average={EMA}", "phases.head.average_every=2"],
            "swa": [f"phases.all.average={SWA}", "phases.all.average_every=null", "phases.all.epochs=2.5"]}
NET = "model={_target_: tests.trainers.test_loop.Net, poisoned: []}"
NORMED = [NET, "data.train={_target_: tests.trainers.test_averaging.OneUnusable, n: 12}", "on_nonfinite=skip",
          "tracking.every_steps=100"]
"""A model with BatchNorm and a buffer that it replaces, and a step in each epoch that is skipped."""


class OneUnusable:
    """Four numbers and one of three classes; those of a sample are NaN."""

    classes = ("a", "b", "c")

    def __init__(self, *, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        inputs = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return inputs * float("nan") if index == 5 else inputs, index % 3


class Witness(AveragedModel):
    """Notes the weights of each update."""

    seen: ClassVar[list[dict[str, Tensor]]] = []

    def update_parameters(self, model: nn.Module) -> None:
        self.seen.append({name: value.clone() for name, value in model.state_dict().items()})
        super().update_parameters(model)


@pytest.mark.parametrize(("average", "stop"), [("ema", 2), ("ema", 6), ("every second", 5), ("swa", 9)])
def test_a_run_with_an_average_is_the_same_after_a_stop(tmp_path: Path, average: str, stop: int) -> None:
    """The average has the buffers of the step, whether the host learns of it before or after the next forward pass."""
    changes = [*NORMED, *AVERAGES[average]]
    straight, _ = attempted(new_run(tmp_path / "straight"), None, [*changes, "checkpoints.every_steps=100"])
    run = new_run(tmp_path / "stopped")
    attempted(run, stop, [*changes, "checkpoints.every_steps=1"])
    resumed, _ = attempted(run, None, [*changes, "checkpoints.every_steps=1"])
    assert weights_sha256(resumed.model.state_dict()) == weights_sha256(straight.model.state_dict())
    assert resumed.progress.best == straight.progress.best
    one, other = (load_file(tmp_path / folder / "checkpoints" / "last" / "optimizer.safetensors")
                  for folder in ("straight", "stopped"))
    assert weights_sha256(one) == weights_sha256(other)


def test_the_average_is_evaluated_saved_and_left_and_the_trained_weights_go_on(tmp_path: Path) -> None:
    """A phase of six steps: the mean of the weights after its two epochs, buffers included. The training is that
    without an average."""
    average = "{_target_: tests.trainers.test_averaging.Witness, use_buffers: true}"
    changes = [NET, "phases.all=null", "checkpoints.every_steps=2"]
    plain, losses = attempted(new_run(tmp_path / "plain"), None, changes)
    Witness.seen.clear()
    run = new_run(tmp_path / "averaged")
    changes += [f"phases.head.average={average}", "phases.head.average_every=null"]
    training, same = attempted(run, None, changes)
    assert losses == same and len(Witness.seen) == 2
    first, second = Witness.seen
    assert weights_sha256(second) == weights_sha256(plain.model.state_dict())
    folder = run.checkpoints / "last"
    saved, beside = (load_file(folder / f"{name}.safetensors") for name in ("model", "optimizer"))
    assert weights_sha256(saved) == weights_sha256(training.model.state_dict())
    assert weights_sha256({name: beside[f"{name}/trained"] for name in saved}) == weights_sha256(second)
    assert beside["average/n_averaged"] == 2
    for name, value in saved.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (first[name] + second[name]) / 2)
    assert training.progress.last["loss"] != plain.progress.last["loss"]


def test_a_skipped_step_is_not_averaged(tmp_path: Path) -> None:
    Witness.seen.clear()
    average = "{_target_: tests.trainers.test_averaging.Witness, use_buffers: true}"
    attempted(new_run(tmp_path / "run"), None, [*NORMED, "phases.all=null", f"phases.head.average={average}"])
    assert len(Witness.seen) == 4


def test_until_the_first_update_the_trained_weights_are_evaluated(tmp_path: Path) -> None:
    changes = [f"phases.head.average={SWA}", "phases.head.average_every=100", "phases.all=null"]
    plain, _ = attempted(new_run(tmp_path / "plain"), None, ["phases.all=null"])
    training, _ = attempted(new_run(tmp_path / "averaged"), None, changes)
    assert weights_sha256(training.model.state_dict()) == weights_sha256(plain.model.state_dict())
    assert training.progress.best == plain.progress.best
