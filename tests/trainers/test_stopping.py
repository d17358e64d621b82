"""Stops and saves: when the ranks check, what they decide, and when they check next."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.profile_records import ProfileRequest
from drumbeat.trainers.stopping import Decision, StopCoordinator
from drumbeat.trainers.world import World

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    shown = Clock()
    monkeypatch.setattr(time, "monotonic", shown)
    return shown


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return RunDir(tmp_path).claim_attempt()


def coordinator(attempt: Attempt, save_seconds: float = math.inf) -> StopCoordinator:
    now = time.monotonic()
    return StopCoordinator(ALONE, attempt, save_seconds=save_seconds, saved_at=now, last_check=(0, now))


def test_a_request_is_found_at_the_next_check_and_not_before(clock: Clock, attempt: Attempt) -> None:
    """Ten steps a second, so half a second is five steps."""
    ranks = coordinator(attempt)
    clock.now += 1.0
    assert ranks.before(10) == Decision()
    assert ranks.next_check == 15
    attempt.request_stop("stopped")
    assert [ranks.before(step) for step in (11, 14)] == [Decision(), Decision()]
    assert ranks.before(15) == Decision(stop=True)


def test_a_save_is_due_after_its_time_and_again_after_the_next_one(clock: Clock, attempt: Attempt) -> None:
    ranks = coordinator(attempt, save_seconds=60.0)
    clock.now += 59.0
    assert ranks.before(ranks.next_check) == Decision()
    clock.now += 1.0
    assert ranks.before(ranks.next_check) == Decision(save=True)
    ranks.saved(0.01)
    clock.now += 59.0
    assert ranks.before(ranks.next_check) == Decision()


def test_slow_steps_are_checked_one_by_one(clock: Clock, attempt: Attempt) -> None:
    ranks = coordinator(attempt)
    for step in range(1, 4):
        clock.now += 7.0
        ranks.before(step)
        assert ranks.next_check == step + 1


def test_the_distance_between_checks_grows_at_most_twofold(clock: Clock, attempt: Attempt) -> None:
    """The first steps after a pause may be much faster than those that follow."""
    ranks = coordinator(attempt)
    steps = [0]
    for _ in range(5):
        clock.now += 1e-6
        ranks.before(steps[-1])
        steps.append(ranks.next_check)
    assert steps == [0, 1, 3, 7, 15, 31]


def test_a_check_can_be_asked_for_sooner(clock: Clock, attempt: Attempt) -> None:
    ranks = coordinator(attempt)
    clock.now += 0.001
    ranks.before(1000)
    assert ranks.next_check > 1001
    attempt.request_stop("stopped")
    ranks.check_before(1001)
    assert ranks.before(1001) == Decision(stop=True)


def test_a_save_after_an_evaluation_is_due_sooner_but_not_each_time(clock: Clock, attempt: Attempt) -> None:
    """Two seconds after the last save, or 20 times as long as training waited for it."""
    ranks = coordinator(attempt, save_seconds=600.0)

    def evaluated(seconds: float) -> bool:
        clock.now += seconds
        ranks.check_before(step := ranks.next_check, evaluated=True)
        return ranks.before(step).save

    assert [evaluated(1.9), evaluated(0.1)] == [False, True]
    ranks.saved(0.5)
    assert [evaluated(9.9), evaluated(0.1)] == [False, True]
    ranks.saved(0.0)
    clock.now += 599.0
    assert not ranks.before(ranks.next_check).save, "without an evaluation"
    ranks.saved(9e9)
    assert [evaluated(599.0), evaluated(1.0)] == [False, True]


def test_the_run_ends_when_its_hours_are_used_up(clock: Clock, attempt: Attempt) -> None:
    ranks = coordinator(attempt)
    ranks.seconds_left = lambda: 1010.0 - clock.now
    clock.now += 9.0
    assert ranks.before(ranks.next_check) == Decision()
    clock.now += 1.0
    assert ranks.before(ranks.next_check) == Decision(end=True)


def test_a_profile_is_requested_once_and_not_while_another_runs(clock: Clock, attempt: Attempt) -> None:
    ranks = coordinator(attempt)
    request = ProfileRequest(id="a", steps=5, ranks=(0,))
    request.write(attempt.profile)
    clock.now += 1.0
    assert ranks.before(10) == Decision(profile=request)
    assert not attempt.profile.exists()
    another = replace(request, id="b")
    another.write(attempt.profile)
    ranks.check_before(15)
    assert ranks.before(15) == Decision()
    ranks.check_before(16)  # five steps, and one for warming up
    assert ranks.before(16) == Decision(profile=another)
    another.write(attempt.profile)  # as on a disk that has become read-only, where it cannot be removed
    ranks.check_before(30)
    assert ranks.before(30) == Decision()
    attempt.profile.write_text("damaged")
    ranks.check_before(31)
    assert ranks.before(31) == Decision()
