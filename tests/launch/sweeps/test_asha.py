"""Successive halving, on a made-up surface, with the decisions of the queue."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from drumbeat.configs.run.sweep import Sweep, Trial
from drumbeat.launch.sweeps.asha import best_third, promoted, reported, rung_step
from drumbeat.launch.sweeps.notation import fraction

STEPS = 270


def sweep_of(count: int, mode: str = "min") -> Sweep:
    trials = tuple(Trial(number=number, values={"lr": str(number)}) for number in range(count))
    return Sweep(id="x", typed="", config="", trials=trials, mode=mode, asha=True)


def loss(number: int, step: int, surface: int = 0) -> float:
    """Curves that fall to different levels at different speeds, and cross."""
    level, speed = fraction(surface, "level", number), 20 + 30 * fraction(surface, "speed", number)
    return level + 2 * math.exp(-step / speed)


def train(sweep: Sweep, slots: int, surface: int) -> tuple[Sweep, dict[int, int]]:
    """Trains as the queue does: some trials at a time, one step each in turn; what each has taken."""
    taken: dict[int, int] = {}
    running: list[int] = []
    while True:
        new = [trial.number for trial in sweep.trials if trial.number not in taken]
        for number in [*promoted(sweep, running), *new][:slots - len(running)]:
            running.append(number)
            sweep = replace(sweep, pruned=tuple(one for one in sweep.pruned if one != number))
        if not running:
            return sweep, taken
        for number in list(running):
            taken[number] = taken.get(number, 0) + 1
            sweep = reported(sweep, number, taken[number], STEPS, loss(number, taken[number], surface))
            if number in sweep.pruned or taken[number] == STEPS:
                running.remove(number)


@pytest.mark.parametrize("surface", [0, 1, 2])
@pytest.mark.parametrize("slots", [1, 4, 8])
def test_the_same_winner_for_two_fifths_of_the_steps(slots: int, surface: int) -> None:
    sweep, taken = train(sweep_of(64), slots, surface)
    final = [loss(number, STEPS, surface) for number in range(64)]
    ended = [number for number, steps in taken.items() if steps == STEPS]
    assert min(final[number] for number in ended) == min(final)
    assert sum(taken.values()) <= 0.4 * 64 * STEPS
    assert len(taken) == 64
    assert promoted(sweep) == []


def test_rungs() -> None:
    assert [rung_step(rung, STEPS) for rung in range(2)] == [30, 90]
    assert [rung_step(rung, 5) for rung in range(2)] == [1, 2]


def test_the_first_ones_wait_until_there_are_three() -> None:
    sweep = sweep_of(3)
    sweep = reported(sweep, 0, 30, STEPS, 1.0)
    assert (sweep.pruned, promoted(sweep)) == ((0,), [])
    sweep = reported(sweep, 1, 29, STEPS, 2.0)
    assert 1 not in sweep.pruned
    sweep = reported(reported(sweep, 1, 30, STEPS, 2.0), 2, 30, STEPS, math.nan)
    assert (sweep.pruned, promoted(sweep), promoted(sweep, [0])) == ((0, 1, 2), [0], [])


def test_the_larger_is_better_where_the_metric_is_maximized() -> None:
    sweep = sweep_of(3, "max")
    for number in range(3):
        sweep = reported(sweep, number, 30, STEPS, float(number))
    assert (best_third(sweep, 0), sweep.pruned) == ([2], (0, 1))


def test_a_trial_without_a_metric_or_at_its_end_is_not_halved() -> None:
    sweep = sweep_of(3)
    assert reported(sweep, 0, 10, STEPS, None) == reported(sweep, 0, 0, 0, 1.0) == sweep
    assert reported(sweep, 0, 3, 3, 1.0).pruned == ()
