"""The metrics of a run, before, during and after its training."""

from __future__ import annotations

import math
from pathlib import Path

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.configs.run.run_metrics import run_metrics
from drumbeat.configs.run.view import View
from tests.runs import write_heartbeat, write_plan, write_state


def test_they_are_those_of_the_best_weights(tmp_path: Path) -> None:
    run = RunDir.new(tmp_path / "runs", "tiny")
    write_plan(run)
    write_state(run, "running")
    assert run_metrics(View.read(run)) == {}
    write_heartbeat(run, validation={"loss": 0.5})
    assert run_metrics(View.read(run)) == {"validation/loss": 0.5}
    best = {"step": 9, "phase": "head", "loss": 0.25, "auroc": None}
    Result(steps=20, samples_seen=40, overshoot=0, best=best, last={"step": 20, "loss": 0.5},
           test={"loss": 0.75}).write(run.result)
    found = run_metrics(View.read(run))
    assert math.isnan(found.pop("validation/auroc"))
    assert found == {"validation/loss": 0.25, "test/loss": 0.75}


def test_without_a_best_evaluation_they_are_the_newest(tmp_path: Path) -> None:
    run = RunDir.new(tmp_path / "runs", "tiny")
    write_plan(run)
    Result(steps=20, samples_seen=40, overshoot=0, last={"step": 20, "phase": "head", "loss": 0.5}).write(run.result)
    assert run_metrics(View.read(run)) == {"validation/loss": 0.5}
