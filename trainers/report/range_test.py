"""The loss over the learning rate, for a run in which the rate rises all the time: a test of which rates can be used.
Source: L. Smith, Cyclical Learning Rates for Training Neural Networks, 2017, section 3.3."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from markupsafe import Markup

from drumbeat.trainers.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, number, powers, ticks
from drumbeat.trainers.report.events import Events
from drumbeat.trainers.report.page import Figure

LEAST = 1000
"""By what factor the rate rises, at least."""
FEWEST = 20
"""Points of the curve."""
SAFE = 10
"""The rate with the lowest loss, divided by this, is marked."""


def range_test(events: Events) -> Iterator[Figure]:
    """The figure; nothing for other runs."""
    points = rates_and_losses(events)
    if len(points) < FEWEST or points[-1][0] < LEAST * points[0][0] or any(
            one[0] >= other[0] for one, other in pairwise(points)):
        return
    lowest = min(range(len(points)), key=lambda place: points[place][1])
    if lowest == 0:
        return
    rate, high = points[lowest][0] / SAFE, max(loss for _, loss in points[:lowest + 1])
    low = points[lowest][1]
    margin = 0.06 * (high - low) or 0.5
    x = Scale(points[0][0], points[-1][0], LEFT, WIDTH - RIGHT, logarithmic=True)
    y = Scale(low - margin, high + margin, HEIGHT - BOTTOM, TOP)
    line = " ".join(f"{x(rate):.1f},{min(max(y(loss), TOP), HEIGHT - BOTTOM):.1f}" for rate, loss in points)
    marks = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
             f'<text x="{LEFT - 7}" y="{y(value) + 4:.1f}" text-anchor="end">{number(value)}</text>'
             for value in ticks(y.low, y.high, 4)]
    marks += [f'<text x="{min(x(value), WIDTH - RIGHT - 3 * len(number(value))):.1f}" y="{HEIGHT - BOTTOM + 21}" '
              f'text-anchor="middle">{number(value)}</text>' for value in powers(x.low, x.high)]
    if rate > x.low:
        marks.append(f'<line class="best" x1="{x(rate):.1f}" x2="{x(rate):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    text = f"the loss is lowest at a learning rate of {number(rate * SAFE)}"
    svg = (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text}">{"".join(marks)}'
           f'<polyline class="c0" points="{line}"/></svg>')
    yield Figure("loss over learning rate", Markup(svg), note=f"{text}; \u250a a tenth of it: {number(rate)}")


def rates_and_losses(events: Events) -> list[tuple[float, float]]:
    """(learning rate, training loss) of each point of the curves, without NaN and Inf."""
    losses = dict(events.curves.get("train/loss", []))
    return [(rate, losses[step]) for step, rate in events.curves.get("train/lr", [])
            if rate > 0 and math.isfinite(losses.get(step, math.nan))]
