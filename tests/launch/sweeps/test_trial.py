"""A trial as a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.load import load
from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.sweeps.trial import new_trial, view_of
from tests.launch import tiny_plan
from tests.launch.sweeps.made import made_sweep, write_trial


def test_its_config_is_that_of_a_single_run(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path, {"phases.head.optimizer.lr": "1e-3,3e-4", "launch.restarts": "7"})
    sweep = folder.read()
    spec = new_trial(folder, sweep, sweep.trials[1])
    single = load(tiny_plan.write_config(tmp_path), sweep.trials[1].assignments, {"name": "s"})
    assert spec.loaded.config == single.config
    shared = JobPlan.require(folder.plan)
    assert spec.plan == replace(shared, run_dir=str(spec.run_dir.path), restarts=7)
    assert (spec.run_dir, spec.preflight) == (folder.run(sweep, 1), False)


def test_a_trial_without_a_run(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..1"})
    write_trial(folder, 1, "finished")
    sweep = folder.read()
    assert view_of(folder, sweep, 0) is None
    assert (view := view_of(folder, sweep, 1)) and view.state == "finished"


@pytest.mark.parametrize("number", [7, 12345])
def test_its_id(tmp_path: Path, number: int) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..1"})
    sweep = folder.read()
    assert folder.run(sweep, number).id == f"{sweep.id}-{number:04d}"
