"""Seconds by kind of work: sums over attempts, and clocks that jump."""

from __future__ import annotations

import time

import pytest

from drumbeat.trainers.time_spent import KINDS, TimeSpent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times that the monotonic clock shows next. The other clock shows 103 s when an attempt is built."""
    times: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: times.pop(0))
    monkeypatch.setattr(time, "time", lambda: 103.0)
    return times


def test_each_kind_gets_the_time_since_the_last_call(clock: list[float]) -> None:
    clock[:] = [7.0, 7.0, 7.5, 11.5, 12.25]
    spent = TimeSpent({}, began=100.0)
    for kind in ("starting", "waiting", "training", "waiting"):
        spent.add(kind)
    assert spent.seconds == {"importing": 0.0, "starting": 3.0, "waiting": 1.25, "training": 4.0, "evaluating": 0.0,
                             "saving": 0.0}


def test_imports_are_no_part_of_the_start(clock: list[float]) -> None:
    clock[:] = [7.0, 7.5]
    spent = TimeSpent({"importing": 1.0}, began=100.0, importing=2.25)
    spent.add("starting")
    assert (spent.seconds["importing"], spent.seconds["starting"]) == (3.25, 1.25)


def test_imports_that_seem_longer_than_the_attempt_are_cut(clock: list[float]) -> None:
    """By a clock that was set."""
    clock[:] = [7.0, 7.5]
    spent = TimeSpent({}, began=100.0, importing=90.0)
    spent.add("starting")
    assert (spent.seconds["importing"], spent.seconds["starting"]) == (3.0, 0.5)


def test_earlier_attempts_are_included_and_unknown_kinds_are_not(clock: list[float]) -> None:
    """A checkpoint of another version may lack a kind, or have one that no longer exists."""
    clock[:] = [7.0, 9.0]
    spent = TimeSpent({"training": 30, "thinking": 9.0}, began=103.0)
    spent.add("training")
    assert spent.seconds == dict.fromkeys(KINDS, 0.0) | {"training": 32.0}


def test_a_clock_that_is_set_back_takes_no_time_away(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the attempt is built, or after it."""
    clock[:] = [7.0, 8.0, 9.0]
    spent = TimeSpent({"saving": 2.0}, began=5000.0)
    spent.add("saving")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    spent.add("saving")
    assert spent.seconds["saving"] == 4.0


def test_sums_are_saved_in_milliseconds(clock: list[float]) -> None:
    clock[:] = [0.0, 1.23456]
    spent = TimeSpent({}, began=103.0)
    spent.add("evaluating")
    assert spent.rounded()["evaluating"] == 1.235
    assert spent.seconds["evaluating"] == 1.23456
