"""Charts that are true: what is where, which numbers stand at the axes, how many points become few."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as Tree
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, draw, number, powers, ticks
from drumbeat.trainers.report.events import Point, read_events, thinned
from drumbeat.trainers.tracking import Tracker


def places(svg: str, kind: str = "polyline") -> list[tuple[float, float]]:
    """The corners of the first line, or band, in pixels."""
    found = re.search(rf'<{kind} [^>]*points="([^"]*)"', svg)
    assert found
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found[1].split())]


def test_a_line_runs_where_its_values_are() -> None:
    svg = draw(Chart(title="x", curves={"a": [(0, 0.0), (50, 10.0), (100, 5.0)]}, from_zero=True), [], 100)
    (x0, y0), (x1, y1), (x2, y2) = places(svg)
    assert (x0, x1, x2) == (LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT)
    assert y0 == HEIGHT - BOTTOM
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.11)
    assert y1 == pytest.approx(y0 - (y0 - TOP) / 1.06, abs=0.11)


def test_a_factor_of_ten_is_the_same_height_everywhere_on_a_logarithmic_scale() -> None:
    chart = Chart(title="x", curves={"a": [(1, 1.0), (2, 0.1), (3, 0.01)]}, magnitudes=True)
    heights = [y for _, y in places(draw(chart, [], 3))]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.11)


def test_many_points_become_their_means_in_a_band_that_holds_them_all() -> None:
    curve = [(step, float(step % 10)) for step in range(1, 1001)]
    points = thinned(curve, 0, 1000, 50)
    assert len(points) == 50
    assert {(point.low, point.high) for point in points[1:]} == {(0.0, 9.0)}
    assert math.fsum(point.mean for point in points) / 50 == pytest.approx(4.5, abs=0.02)
    assert points[-1].step == 1000
    assert len(places(draw(Chart(title="x", curves={"a": curve}), [], 1000), "polygon")) == 160


def test_nan_and_inf_are_left_out() -> None:
    assert thinned([(1, math.nan), (2, 0.5), (3, math.inf)], 0, 3, 10) == [Point(2, 0.5, 0.5, 0.5)]


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-3.0, -3.0], [1e-30, 2e-30], [1e30, -1e30], [0.0, 1e-7],
                                    [5e8, 5e8 + 1]])
def test_a_chart_of_anything(values: list[float]) -> None:
    """Well-formed, and all of the line inside the plot."""
    for flags in ({}, {"from_zero": True}, {"magnitudes": True}, {"percent": True}):
        chart = Chart(title="<&>", curves={"a & b": list(enumerate(values, 1))}, best=1, **flags)
        svg = Tree.fromstring(draw(chart, [("<head>", 0, 1), ("next", 1, 2)], 2))
        for x, y in places(Tree.tostring(svg, encoding="unicode")):
            assert LEFT <= x <= WIDTH - RIGHT
            assert TOP <= y <= HEIGHT - BOTTOM


def test_ticks_are_round_and_few() -> None:
    assert ticks(0.0, 1.0, 4) == [0.0, 0.5, 1.0]
    assert ticks(0.13, 0.52, 4) == [0.2, 0.3, 0.4, 0.5]
    assert ticks(0, 75, 5) == [0, 20, 40, 60]
    assert powers(0.2, 30) == [0.2, 0.5, 1, 2, 5, 10, 20]
    assert powers(1e-6, 0.01) == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2])


def test_numbers_as_people_write_them() -> None:
    assert [number(value) for value in (0, 0.88333, 12.0, 1234567, 1e-6, 2.5e-4, -3e8, math.nan, -math.inf)] == [
        "0", "0.8833", "12", "1,234,567", "1e-6", "2.5e-4", "-3e8", "nan", "-inf"]


def test_a_step_that_was_repeated_after_a_restart_counts_once(tmp_path: Path) -> None:
    """And an event file that ends in the middle of a point, as one that is being written may, gives all before it."""
    run = RunDir(tmp_path)
    for first, value in ((0, 1.0), (3, 2.0)):
        tracker = Tracker(run, run.claim_attempt(), step=first, config_text="")
        for step in range(first + 1, 6):
            tracker.scalars(step, {"train/loss": value})
        tracker.close()
    events = read_events(run.tensorboard)
    assert events.curves == {"train/loss": [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0)]}
    newest = max(run.tensorboard.iterdir())
    newest.write_bytes(newest.read_bytes()[:-7])
    assert read_events(run.tensorboard).curves["train/loss"][:4] == events.curves["train/loss"][:4]
