"""The trials of a sweep."""

from __future__ import annotations

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.run.sweep import Trial
from drumbeat.launch.sweeps.space import covering, numbered, spread, structures, united


def test_all_points_of_the_lists() -> None:
    assert spread({"lr": "1e-3,3e-4", "seed": "0..1"}, None, 0) == [
        {"lr": "1e-3", "seed": "0"}, {"lr": "1e-3", "seed": "1"},
        {"lr": "3e-4", "seed": "0"}, {"lr": "3e-4", "seed": "1"}]


def test_more_draws_repeat_the_first_ones() -> None:
    """And each draw is combined with all points of the lists."""
    space = {"seed": "0..1", "lr": "loguniform(1e-5,1e-1)", "width": "randint(8,64)"}
    few, many = spread(space, 3, 7), spread(space, 20, 7)
    assert many[:6] == few
    assert [point["seed"] for point in few] == ["0", "1"] * 3
    assert few[0]["lr"] == few[1]["lr"] != few[2]["lr"]
    assert list(few[0]) == list(space)
    assert spread(space, 3, 8) != few


@pytest.mark.parametrize(("space", "samples", "what"), [
    ({"lr": "uniform(0,1)"}, None, "lr is drawn, and the number of draws is not given"),
    ({"lr": "1,2"}, 3, "nothing is drawn"),
    ({"lr": "uniform(0,1)"}, 0, "the number of draws is at least 1"),
    ({"a": "1..1000", "b": "1..1000"}, None, "the sweep has 1,000,000 trials"),
])
def test_what_is_no_sweep(space: dict[str, str], samples: int | None, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spread(space, samples, 0)
    assert caught.value.faults[0].what == what


def test_extended_by_values() -> None:
    """Old trials keep their numbers, and only new points are added."""
    before = numbered(spread({"lr": "1,2", "seed": "0..1"}, None, 0))
    space = united({"lr": "1,2", "seed": "0..1"}, {"lr": "3,2", "seed": "2"})
    assert space == {"lr": "1,2,3", "seed": "0,1,2"}
    after = numbered(spread(space, None, 0), before)
    assert after[:4] == before
    assert [(trial.number, *trial.values.values()) for trial in after[4:]] == [
        (4, "1", "2"), (5, "2", "2"), (6, "3", "0"), (7, "3", "1"), (8, "3", "2")]


@pytest.mark.parametrize(("typed", "what"), [
    ({"sed": "3"}, "sed does not vary in this sweep"),
    ({"lr": "uniform(0,2)"}, "a distribution cannot be extended"),
])
def test_extended_by_what_does_not_fit(typed: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        united({"lr": "uniform(0,1)", "seed": "0..1"}, typed)
    assert caught.value.faults[0].what == what


def test_a_few_trials_have_the_extremes_between_them() -> None:
    trials = numbered(spread({"lr": "geomspace(1e-4,1,50)", "batch": "16..64..16", "model": "a,b"}, None, 0))
    few = covering(trials)
    assert len(few) <= 6
    assert {"1", "0.0001"} <= {trial.values["lr"] for trial in few}
    assert {"16", "64"} <= {trial.values["batch"] for trial in few}
    assert {"a", "b"} == {trial.values["model"] for trial in few}


def test_structures_are_what_the_preflight_check_builds() -> None:
    values = [{"model.width": width, "lr": lr, "phases.a.optimizer._target_": target}
              for width in "12" for lr in "34" for target in "ab"]
    trials = [Trial(number=number, values=one) for number, one in enumerate(values)]
    assert [trial.number for trial in structures(trials)] == [0, 1, 4, 5]
    assert [trial.number for trial in structures([Trial(number=n, values={"lr": str(n)}) for n in range(5)])] == [0]
