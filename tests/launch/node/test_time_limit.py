"""The end of a job's time limit moves, and is asked for before anything is done about it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.node import time_limit
from drumbeat.launch.node.time_limit import TimeLimit


class Clock:
    """A clock that a test sets, and a controller whose answer it sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, end: float) -> None:
        self.now, self.end, self.questions = 1000.0, end, 0
        for name in ("time", "monotonic"):
            monkeypatch.setattr(time_limit.time, name, lambda: self.now)
        monkeypatch.setattr(time_limit.time, "sleep", self.pass_time)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def ask(self, known: float) -> float:
        self.questions += 1
        return self.end


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def test_the_ranks_stop_in_time(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, end=2000.0)
    limit = TimeLimit(clock.ask, run, 120, began=1000.0)
    assert not limit.must_stop()
    clock.now = 1875.0
    assert not limit.must_stop()
    clock.now = 1885.0
    assert limit.must_stop()
    assert not limit.is_over()
    clock.now = 1997.0
    assert limit.is_over()


def test_a_short_allocation_is_used_for_half_of_its_time(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, end=1120.0)
    limit = TimeLimit(clock.ask, run, 120, began=1000.0)
    assert not limit.must_stop()
    clock.now = 1061.0
    assert limit.must_stop()


def test_a_limit_that_is_extended_at_the_last_moment(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by suspending the job until after its old end."""
    clock = Clock(monkeypatch, end=2000.0)
    limit = TimeLimit(clock.ask, run, 120, began=1000.0)
    assert not limit.must_stop()
    clock.now, clock.end = 2500.0, 5000.0
    assert not limit.is_over()
    assert not limit.must_stop()


def test_a_limit_that_is_shortened(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, end=9000.0)
    limit = TimeLimit(clock.ask, run, 120, began=1000.0)
    assert not limit.must_stop()
    clock.now, clock.end = 1061.0, 1100.0
    assert limit.must_stop()


def test_slurm_is_asked_once_a_minute(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, end=math.inf)
    limit = TimeLimit(clock.ask, run, 120, began=1000.0)
    while clock.now < 1600:
        assert not limit.must_stop()
        assert not limit.is_over()
        limit.sleep(0.2)
    assert clock.questions == 10
    assert limit.suspended == 0


def test_a_long_pause_is_a_suspension(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, end=math.inf)
    limit = TimeLimit(clock.ask, run, 120, began=1000.0)
    for seconds in (0.2, 30.0, 0.2, 12.0):
        limit.sleep(seconds)
    assert limit.suspended == 42.0
