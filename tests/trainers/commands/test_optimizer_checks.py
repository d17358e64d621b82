"""Optimizers and schedulers that would not do what the config says."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.commands.preflight import preflight
from tests.tiny import write_config

GROUP = "phases.head.groups.bias={match: ['*.bias'], optimizer: {lr: 0.5}}"


def fault(folder: Path, *changes: str) -> tuple[str, str, str]:
    with pytest.raises(PreflightError) as caught:
        preflight(load(write_config(folder), changes).config)
    (found,) = caught.value.faults
    return found.what, found.where, found.given


@pytest.mark.parametrize(("target", "name"), [("torch.optim.LBFGS", "LBFGS"),
                                              ("tests.trainers.own_optimizers.Closing", "Closing")])
def test_a_step_that_computes_the_loss_again(tmp_path: Path, target: str, name: str) -> None:
    what, where, given = fault(tmp_path, f"phases.head.optimizer={{_target_: {target}, lr: 0.1}}")
    assert (what, where) == (f"{name} needs several evaluations in each step, which is not supported",
                             "phases.head.optimizer")
    assert given.endswith(f"{name}.step(closure)")


def test_a_scheduler_that_forgets_the_rates_of_the_groups(tmp_path: Path) -> None:
    """OneCycleLR sets the rate of each group from its `max_lr`."""
    cycle = "phases.head.scheduler={_target_: torch.optim.lr_scheduler.OneCycleLR, total_steps: 17, max_lr: 0.1}"
    what, where, given = fault(tmp_path, GROUP, cycle)
    assert what == "OneCycleLR gives all parameter groups one learning rate, and the config gives them 2"
    assert (where, given) == ("phases.head.scheduler", "from 0.01 to 0.5 without it, 0.004 with it")
    preflight(load(write_config(tmp_path), [GROUP, cycle.replace("0.1}", "[0.1, 5.0]}")]).config)


@pytest.mark.parametrize(("average", "optimizer", "expected"), [
    ("{_target_: torch.optim.swa_utils.AveragedModel, decay: 0.9}", "torch.optim.SGD",
     ("torch.optim.swa_utils.AveragedModel has no argument 'decay'", "phases.head.average.decay")),
    ("{_target_: torch.optim.swa_utils.get_ema_multi_avg_fn, decay: 0.9}", "torch.optim.SGD",
     ("this does not average weights", "phases.head.average")),
    ("{_target_: torch.optim.swa_utils.AveragedModel, multi_avg_fn: torch.optim.swa_utils.get_ema_multi_avg_fn}",
     "torch.optim.SGD", ("multi_avg_fn must be a section with a _target_", "phases.head.average.multi_avg_fn")),
    ("{_target_: torch.nn.Identity}", "torch.optim.SGD", ("this does not average weights", "phases.head.average")),
    ("{_target_: torch.optim.swa_utils.AveragedModel}", "tests.trainers.own_optimizers.ScheduleFree",
     ("ScheduleFree averages the weights itself", "phases.head.average"))])
def test_an_average_that_cannot_be_one(tmp_path: Path, average: str, optimizer: str, expected: tuple[str, str]) -> None:
    what, where, _ = fault(tmp_path, f"phases.head.average={average}",
                           f"phases.head.optimizer={{_target_: {optimizer}, lr: 0.1}}")
    assert (what, where) == expected


def test_a_group_that_no_parameter_fits(tmp_path: Path) -> None:
    what, where, _ = fault(tmp_path, "phases.head.groups.norms={match: ['*.norm']}")
    assert (what, where) == ("no module or parameter of the model fits '*.norm'", "phases.head.groups.norms.match")
