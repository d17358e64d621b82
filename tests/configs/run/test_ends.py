"""When a phase ends by its metric, and whether a finished run would continue with another config."""

from __future__ import annotations

import math
from typing import Any

import pytest

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.run.checkpoint_records import PhaseEnd, Progress
from drumbeat.configs.run.ends import Ends, continues, end_of, ends_of, reopened
from drumbeat.configs.schema import Config


def config(*names: str, budget: dict[str, Any] | None = None, **phase: Any) -> Config:
    phases = {name: {"epochs": 2, "optimizer": {"_target_": "x"}, **phase} for name in names or ("head", "all")}
    return build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 4, "model": {"_target_": "x"}, "phases": phases, "budget": budget or {},
        "evaluation": {"monitor": "accuracy", "mode": "max"}})])


def ended(reason: Any, phase: int = 1, **fields: Any) -> Progress:
    return Progress(step=20, phase=phase, phase_step=10, stale=3, **fields,
                    ended=(PhaseEnd(phase=phase, steps=10, reason=reason, text=""),))


def stale(ends: Ends, values: list[float]) -> list[int]:
    progress, found = Progress(), []
    for value in values:
        progress = ends.evaluated(progress, value)
        found.append(progress.stale)
    return found


@pytest.mark.parametrize(("given", "values", "found"), [
    ({}, [0.5, 0.4, 0.4, 0.6, 0.3], [0, 0, 1, 2, 0]),
    ({"mode": "max"}, [0.5, 0.6, 0.6, 0.4, 0.7], [0, 0, 1, 2, 0]),
    ({"min_delta": 0.1}, [0.5, 0.45, 0.41, 0.35, 0.3], [0, 1, 2, 0, 1]),
    ({}, [math.nan, math.nan, 0.5, math.nan, 0.4], [1, 2, 0, 1, 0]),
    ({}, [math.inf, 0.5, math.inf, -math.inf, -math.inf], [0, 0, 1, 0, 1]),
])
def test_how_often_a_value_was_not_better(given: dict[str, Any], values: list[float], found: list[int]) -> None:
    assert stale(Ends(monitor="loss", **given), values) == found


def test_without_a_validation_set_nothing_is_counted() -> None:
    assert Ends(monitor="loss").evaluated(Progress(step=3), None) == Progress(step=3)


@pytest.mark.parametrize(("given", "progress", "reason"), [
    ({}, Progress(step=9, stale=99), None),
    ({"patience": 3}, Progress(step=9, stale=2), None),
    ({"patience": 3}, Progress(step=9, stale=3), "patience"),
    ({"target": 0.5}, Progress(step=9, last={"step": 9, "loss": 0.6}), None),
    ({"target": 0.5}, Progress(step=9, last={"step": 9, "loss": 0.5}), "target"),
    ({"target": 0.5}, Progress(step=9, last={"step": 8, "loss": 0.5}), None),
    ({"target": 0.5}, Progress(step=9, last={"step": 9, "loss": None}), None),
    ({"target": 0.5}, Progress(step=9, last={"step": 9, "loss": math.nan}), None),
    ({"target": 0.5, "mode": "max", "patience": 1}, Progress(step=9, stale=1, last={"step": 9, "loss": 0.5}), "target"),
])
def test_why_a_phase_ends(given: dict[str, Any], progress: Progress, reason: str | None) -> None:
    assert Ends(monitor="loss", **given).reason(progress) == reason


def test_the_keys_and_the_text_of_a_phase() -> None:
    ends = ends_of(config(patience=3, min_delta=0.01, target=0.9), 1)
    assert ends == Ends(monitor="accuracy", mode="max", patience=3, min_delta=0.01, target=0.9)
    assert [ends.text(reason) for reason in ("patience", "target", "hours")] == [
        "accuracy has not been better in 3 evaluations", "accuracy has reached 0.9", "the hours of the run are used up"]


def test_a_phase_is_open_again_if_the_config_no_longer_ends_it() -> None:
    by_patience = ended("patience")
    assert end_of(by_patience, 1) is not None
    assert end_of(by_patience, 0) is None
    assert reopened(by_patience, config(patience=3)) is by_patience
    assert reopened(by_patience, config(patience=4)).ended == reopened(by_patience, config()).ended == ()
    by_hours = ended("hours", seconds={"training": 3600.0, "saving": 1.0})
    assert reopened(by_hours, config(budget={"hours": 1})) is by_hours
    assert reopened(by_hours, config(budget={"hours": 2})).ended == ()
    later = Progress(phase=1, ended=ended("patience", phase=0).ended)
    assert reopened(later, config()) is later, "a phase that is over stays over"


@pytest.mark.parametrize(("before", "after", "progress", "more"), [
    (config(), config(), Progress(step=20, phase=1), False),
    (config(), config("head", "all", "last"), Progress(step=20, phase=1), True),
    (config(), config(epochs=3), Progress(step=20, phase=1), True),
    (config(), config(epochs=3), None, True),
    (config(patience=3), config(patience=3, epochs=9), ended("patience"), False),
    (config(patience=3), config(patience=4), ended("patience"), True),
    (config(patience=3), config("head", "all", "last", patience=3), ended("patience"), True),
    (config(budget={"steps": 20}), config(budget={"steps": 20}, epochs=9), Progress(step=20, phase=1), False),
    (config(budget={"steps": 20}), config(budget={"steps": 30}), Progress(step=20), True),
    (config(budget={"steps": 20}), config(), Progress(step=20), True),
    (config(budget={"hours": 1}), config(budget={"hours": 2}), ended("hours", seconds={"training": 4000.0}), True),
    (config(budget={"hours": 1}), config("head", "all", "last", budget={"hours": 1}),
     ended("hours", seconds={"training": 4000.0}), False),
    (config(budget={"hours": 1}), config(budget={"hours": 1}), Progress(step=9, seconds={"saving": 3599.9}), False),
    (config(budget={"hours": 1}), config(budget={"hours": 1}, epochs=9), Progress(step=9, seconds={"saving": 3600}),
     False),
    (config(budget={"hours": 1}), config(budget={"hours": 2}), Progress(step=9, seconds={"saving": 3600}), True),
    (config(patience=3, budget={"hours": 1}), config(patience=3, budget={"hours": 1}),
     ended("patience", phase=0, seconds={"saving": 3600}), False),
])
def test_whether_a_finished_run_continues(before: Config, after: Config, progress: Progress | None,
                                          more: bool) -> None:
    assert continues(before, after, progress) == more
