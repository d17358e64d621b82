"""The chart of the loss over the learning rate, for a run in which the rate rises all the time."""

from __future__ import annotations

import re
from typing import Any

import pytest

from drumbeat.trainers.report.events import Events
from drumbeat.trainers.report.range_test import range_test, rates_and_losses

RATES = [1e-6 * 10 ** (step / 10) for step in range(71)]
LOSSES = [2.3 - 0.02 * min(step, 50) + 0.5 * max(0, step - 50) for step in range(71)]


def events(rates: list[float], losses: list[float]) -> Events:
    return Events({"train/lr": list(enumerate(rates, 1)), "train/loss": list(enumerate(losses, 1))}, {})


def test_a_tenth_of_the_best_rate_is_marked() -> None:
    (figure,) = range_test(events(RATES, LOSSES))
    assert figure.title == "loss over learning rate"
    assert figure.note == "the loss is lowest at a learning rate of 0.1; ┊ a tenth of it: 0.01"
    line = re.search(r'points="([^"]+)"', figure.body)
    assert line is not None
    places: Any = [tuple(map(float, point.split(","))) for point in line[1].split()]
    assert len(places) == 71
    assert max(places, key=lambda place: place[1]) == places[50]  # SVG counts from the top
    marked = re.search(r'class="best" x1="([\d.]+)"', figure.body)
    assert marked is not None
    assert float(marked[1]) == pytest.approx(places[40][0], abs=0.1)


@pytest.mark.parametrize(("rates", "losses"), [
    (RATES[::-1], LOSSES), (RATES[:20], LOSSES[:20]), ([0.1] * 71, LOSSES), (RATES, [*range(71)]), ([], [])])
def test_other_runs_have_none(rates: list[float], losses: list[float]) -> None:
    """A falling, short or constant schedule, and one in which the loss never fell."""
    assert [*range_test(events(rates, losses))] == []


def test_a_loss_that_is_nan_has_no_point() -> None:
    assert rates_and_losses(events([1e-3, 1e-2], [float("nan"), 1.0])) == [(1e-2, 1.0)]
