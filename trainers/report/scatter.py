"""Scatter charts as SVG: a metric of many runs against the values of one key. They look like the line charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from drumbeat.trainers.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, number, powers, ticks


class Dot(NamedTuple):
    """A run."""

    value: str
    """Of the key, as it is written."""
    metric: float
    label: str
    best: bool = False


def scatter(title: str, dots: Sequence[Dot]) -> str:
    """The chart: numbers on a scale, which is logarithmic if the largest is at least ten times the smallest; other
    values beside each other. Dots have their label under the mouse."""
    places, marks = _horizontal([dot.value for dot in dots])
    metrics = [dot.metric for dot in dots]
    margin = (max(metrics) - min(metrics)) * 0.06 or abs(max(metrics)) * 0.1 or 0.5
    y = Scale(min(metrics) - margin, max(metrics) + margin, HEIGHT - BOTTOM, TOP)
    marks += [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
              f'<text x="{LEFT - 7}" y="{y(value) + 4:.1f}" text-anchor="end">{number(value)}</text>'
              for value in ticks(y.low, y.high, 4)]
    order = sorted(dots, key=lambda dot: dot.best)  # the best one is drawn over the others
    marks += [f'<circle class="{"c1" if dot.best else "c0"}" cx="{places[dot.value]:.1f}" cy="{y(dot.metric):.1f}" '
              f'r="{5 if dot.best else 3}"><title>{escape(dot.label)}</title></circle>' for dot in order]
    text = f"{title}: {len(dots)} runs from {number(min(metrics))} to {number(max(metrics))}"
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(text)}">{"".join(marks)}</svg>')


def _horizontal(values: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The place of each value, in pixels, and the labels below the chart."""
    numbers = {text: value for text in values if (value := _number(text)) is not None}
    if len(numbers) < len(set(values)):
        distinct = list(dict.fromkeys(values))
        width = (WIDTH - RIGHT - LEFT) / len(distinct)
        places = {text: LEFT + (place + 0.5) * width for place, text in enumerate(distinct)}
        most = max(3, int(width / 6.5))
        return places, [_label(at, text if len(text) <= most else f"{text[:most - 1]}…") for text, at in places.items()]
    low, high = min(numbers.values()), max(numbers.values())
    logarithmic = low > 0 and high / low >= 10
    margin = 0.0 if logarithmic else (high - low) * 0.04 or abs(high) * 0.1 or 0.5
    x = Scale(low / 1.3, high * 1.3, LEFT, WIDTH - RIGHT, logarithmic=True) if logarithmic else (
        Scale(low - margin, high + margin, LEFT, WIDTH - RIGHT))
    shown = powers(x.low, x.high) if logarithmic else ticks(x.low, x.high, 5)
    return {text: x(value) for text, value in numbers.items()}, [_label(x(value), number(value)) for value in shown]


def _label(at: float, text: str) -> str:
    return f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 21}" text-anchor="middle">{escape(text)}</text>'


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
