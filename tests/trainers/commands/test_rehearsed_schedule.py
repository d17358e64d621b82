"""A schedule is rehearsed to its end before a run is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.commands import rehearsed_schedule
from drumbeat.trainers.commands.preflight import preflight
from tests.tiny import write_config

ONE_CYCLE = "phases.finetune.scheduler={{_target_: torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.1, total_steps: {}}}"


def test_one_that_is_too_short(tmp_path: Path) -> None:
    """Training would end at step 21 of 25, and again after each restart."""
    with pytest.raises(PreflightError) as caught:
        preflight(load(write_config(tmp_path), [ONE_CYCLE.format(20)]).config)
    (fault,) = caught.value.faults
    assert fault.what.startswith("the scheduler fails at step 21 of the phase's 25: Tried to step 21 times.")
    assert (fault.where, fault.given, fault.remedy) == (
        "phases.finetune.scheduler", "OneCycleLR", "It must last for 25 steps, which is ${phase.steps}.")


@pytest.mark.parametrize("steps", [26, 25])
def test_one_that_lasts(tmp_path: Path, steps: int) -> None:
    assert preflight(load(write_config(tmp_path), [ONE_CYCLE.format(steps)]).config)["notes"] == []


def test_it_is_stepped_as_often_as_in_the_run(tmp_path: Path) -> None:
    """2.5 epochs are three boundaries."""
    changes = [ONE_CYCLE.format(2), "phases.finetune.scheduler_every=epoch"]
    with pytest.raises(PreflightError, match="at epoch 3 of the phase's 3"):
        preflight(load(write_config(tmp_path), changes).config)
    for count in ("3", "'${phase.epochs}'"):
        preflight(load(write_config(tmp_path), [ONE_CYCLE.format(count), changes[1]]).config)


def test_a_learning_rate_below_zero(tmp_path: Path) -> None:
    """The usual decay with a slip: one minus the share of steps, with a share too large."""
    down = f"phases.head.scheduler={{_target_: {__name__}.falling}}"
    with pytest.raises(PreflightError) as caught:
        preflight(load(write_config(tmp_path), [down]).config)
    (fault,) = caught.value.faults
    assert (fault.what, fault.where) == ("the learning rate is -0.001 after 11 of the phase's 17 steps",
                                         "phases.head.scheduler")


def falling(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 10)


def test_a_long_one_is_not_rehearsed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsed_schedule, "MOST", 10)
    notes = preflight(load(write_config(tmp_path)).config)["notes"]
    assert notes == ["only the first 10 of 25 steps of phases.finetune.scheduler were rehearsed"]


@pytest.mark.parametrize(("scheduler", "note"), [
    ("{_target_: AT.CosineAnnealingLR, T_max: 20}", "the cosine is at its lowest after 20 steps, and rises again: the "
     "phase has 25, which is ${phase.steps}"),
    ("{_target_: AT.CosineAnnealingLR, T_max: 30}", "the cosine is at its lowest after 30 steps, which the phase does "
     "not reach: the phase has 25, which is ${phase.steps}"),
    ("{_target_: AT.MultiStepLR, milestones: [10, 25]}", "milestone 25 is not reached in the phase's 25 steps"),
    ("{_target_: AT.SequentialLR, milestones: [5], schedulers: [{_target_: AT.LinearLR, total_iters: 5}, "
     "{_target_: AT.CosineAnnealingLR, T_max: 25}]}", "the cosine is at its lowest after 30 steps, which the phase "
     "does not reach: the phase has 25, which is ${phase.steps}"),
    ("{_target_: AT.CosineAnnealingLR, T_max: '${phase.steps}'}", "")])
def test_one_that_does_not_fit_the_phase(tmp_path: Path, scheduler: str, note: str) -> None:
    """Although no step of it fails."""
    change = f"phases.finetune.scheduler={scheduler.replace('AT', 'torch.optim.lr_scheduler')}"
    notes = preflight(load(write_config(tmp_path), [change]).config)["notes"]
    assert notes == ([f"phases.finetune.scheduler: {note}"] if note else [])
