"""Values that a sampler of optuna chooses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError, LaunchError
from drumbeat.configs.run.sweep import Sweep, SweepDir, Trial
from drumbeat.launch.sweeps import sampler
from drumbeat.launch.sweeps.sampler import check_sampler, chosen, ends_of

SPACE = {"lr": "loguniform(1e-5,1e-1)", "width": "randint(8,64)", "act": "relu,gelu"}


def sweep_of(count: int, name: str) -> Sweep:
    return Sweep(id="x", typed="", config="", space=SPACE, samples=count, sampler=name,
                 trials=tuple(Trial(number=number, values={}) for number in range(count)))


def metric(values: dict[str, str]) -> float:
    return abs(math.log10(float(values["lr"])) + 3) + int(values["width"]) / 64 + (values["act"] == "relu")


def searched(folder: SweepDir, count: int, name: str) -> list[float]:
    """The metrics of trials one after another; every fifth one fails."""
    sweep, results = sweep_of(count, name), dict[int, float | None]()
    for number in range(count):
        trial = chosen(folder, sweep, number, results)
        sweep = replace(sweep, trials=(*sweep.trials[:number], trial, *sweep.trials[number + 1:]))
        results[number] = None if number % 5 == 4 else metric(trial.values)
    return [found for found in results.values() if found is not None]


def test_tpe_learns_from_what_it_is_told(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    found = searched(SweepDir(tmp_path), 40, "tpe")
    assert sum(found[-12:]) / 12 < sum(found[:8]) / 8


def test_a_trial_keeps_its_values(tmp_path: Path) -> None:
    """Also if the queue is killed before it has recorded them; and all values can be typed."""
    pytest.importorskip("optuna")
    sweep, folder = sweep_of(2, "random"), SweepDir(tmp_path)
    first = chosen(folder, sweep, 0, {})
    assert chosen(folder, sweep, 0, {}) == first != chosen(folder, sweep, 1, {0: 1.0})
    assert list(first.values) == list(SPACE)
    assert 1e-5 <= float(first.values["lr"]) <= 1e-1
    assert 8 <= int(first.values["width"]) <= 64
    assert first.values["act"] in ("relu", "gelu")


def test_the_ends_are_checked_before_the_start() -> None:
    assert [trial.values for trial in ends_of(sweep_of(1, "tpe"))] == [
        {"lr": "1e-05", "width": "8", "act": "relu"}, {"lr": "0.1", "width": "64", "act": "gelu"}]


def test_what_is_no_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    check_sampler("optuna.samplers.TPESampler")
    with pytest.raises(ConfigError, match="Did you mean 'tpe'"):
        check_sampler("tpee")
    with pytest.raises(ConfigError, match="the sampler cannot be imported"):
        check_sampler("my_lab.Sampler")
    monkeypatch.setattr(sampler.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(LaunchError, match=r"pip install 'drumbeat\[sweeps\]'"):
        check_sampler("tpe")
