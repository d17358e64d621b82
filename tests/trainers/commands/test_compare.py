"""Comparing two runs: bit for bit, or within a tolerance if their numbers of ranks differ."""

from __future__ import annotations

import math

import pytest

from drumbeat.trainers.commands.compare import BAND, _curves_differ, _near, _same

NAN = float("nan")


def test_nan_equals_nan() -> None:
    assert _same({"r2": NAN}, {"r2": float("nan")})
    assert not _same({"r2": NAN}, {"r2": 0.0})
    assert not _same(0.1, math.nextafter(0.1, 1))
    assert not _same(None, {})


@pytest.mark.parametrize(("one", "other", "near"), [
    (0.5 + BAND - 0.01, 0.5, True), (0.5 + BAND + 0.01, 0.5, False), (100 * (1 + BAND) - 1, 100.0, True),
    (NAN, NAN, True), (NAN, 0.5, False), (0.5, NAN, False),
])
def test_the_band(one: float, other: float, near: bool) -> None:
    assert _near(one, other) is near


@pytest.mark.parametrize(("mine", "exact", "messages"), [
    ([(1, 0.5), (2, NAN)], True, []),
    ([(1, 0.5), (2, 0.25)], True, ["curve loss: different values"]),
    ([(1, 0.5), (2, 0.25)], False, []),
    ([(1, 0.5)], False, ["curve loss: 1 points instead of 2"]),
    ([(1, 0.5), (1, 0.5), (2, NAN)], True, ["curve loss: 1 steps appear twice"]),
])
def test_curves(mine: list[tuple[int, float]], exact: bool, messages: list[str]) -> None:
    assert _curves_differ({"loss": mine}, {"loss": [(1, 0.5), (2, float("nan"))]}, exact=exact) == messages
