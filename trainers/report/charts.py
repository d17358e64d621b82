"""Line charts as SVG, in the colours of the page (light and dark), at any size, without a script.

Matplotlib is not used here: its SVG has fixed colours, draws text as outlines, and shows no values under the mouse. A
JavaScript library would need a script, and the page has none and is read offline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import cycle

from drumbeat.trainers.report.events import Curve, Point, thinned

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 70, 12, 26, 34
"""The margins around the plot, for labels."""
POINTS = 80
"""The largest number of points in a curve. With more, each is the mean of its neighbours, and a band shows their
range."""
COLUMNS = 48
"""The number of vertical strips of the plot that show their values under the mouse."""
COLOURS = {"train": 0, "validation": 1, "test": 2}
"""The colours of curves that every report has. Other curves take the following colours in turn."""
DOTS = 24
"""The largest number of points that are drawn as dots."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What a chart shows."""

    title: str
    curves: dict[str, Curve]
    """By name."""
    reference: dict[str, Curve] = field(default_factory=dict)
    """The curves of a source, by the name of the curve that each belongs to: dashed lines."""
    from_zero: bool = False
    percent: bool = False
    magnitudes: bool = False
    """Whether the scale is logarithmic if the largest value is at least ten times the smallest."""
    best: int | None = None
    """A step to mark."""
    colours: Mapping[str, int] | None = None
    """The number of each curve's colour, 0 to 5; None for those of a report of one run."""

    @property
    def last(self) -> int:
        return max((curve[-1][0] for curve in self.curves.values() if curve), default=0)

    def number(self, value: float) -> str:
        """A value as text."""
        return f"{100 * value:.3g}%" if self.percent else number(value)


@dataclass(frozen=True)
class Scale:
    """Values to pixels."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(x) if self.logarithmic else x for x in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def number(value: float) -> str:
    """Four significant digits, with commas between thousands."""
    if math.isfinite(value) and value and (abs(value) < 1e-3 or abs(value) >= 1e7):
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:,.0f}" if 1000 <= abs(value) < math.inf else f"{value:.4g}"


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between two values, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def powers(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones on a logarithmic scale: powers of ten, and 2 and 5 times them if there
    are few."""
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 3 else (1,)
    values = [factor * 10.0**decade for decade in decades[::1 + len(decades) // 6] for factor in factors]
    return [value for value in values if low <= value <= high]


def colours(names: Iterable[str]) -> list[int]:
    """The number of each curve's colour, 0 to 5."""
    others = cycle(range(len(COLOURS), 6))
    return [COLOURS[name] if name in COLOURS else next(others) for name in names]


def draw(chart: Chart, phases: Sequence[tuple[str, int, int]], last: int) -> str:
    """The chart from step 0 to `last`, on a background that shades every second phase (name, first step, last
    step)."""
    curves = {name: thinned(curve, 0, last, POINTS) for name, curve in chart.curves.items()}
    x = Scale(0, max(last, 1), LEFT, WIDTH - RIGHT)
    source = {name: points for name in curves if (points := thinned(chart.reference.get(name, []), 0, last, POINTS))}
    y = _vertical(chart, [point for curve in (*curves.values(), *source.values()) for point in curve])
    marks = [_phase(x, *phase, shaded=number % 2 == 1) for number, phase in enumerate(phases) if phase[1] < last]
    marks += _axes(chart, x, y)
    if chart.best is not None:
        marks.append(f'<line class="best" x1="{x(chart.best):.1f}" x2="{x(chart.best):.1f}" y1="{TOP}" '
                     f'y2="{HEIGHT - BOTTOM}"/>')
    numbers = chart.colours or dict(zip(curves, colours(curves), strict=True))
    marks += [_curve(points, x, y, f"c{numbers[name]}") for name, points in curves.items()]
    marks += [_curve(points, x, y, "source") for points in source.values()]
    marks += _columns(chart, curves | {f"source, {name}": points for name, points in source.items()}, x)
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_alt_text(chart))}">'
            f'{"".join(marks)}</svg>')


def _vertical(chart: Chart, points: Sequence[Point]) -> Scale:
    """The scale of the values: the range of the curves and a margin."""
    low, high = min(point.mean for point in points), max(point.mean for point in points)
    start, end = HEIGHT - BOTTOM, TOP
    if chart.magnitudes and low > 0 and high / low >= 10:
        return Scale(low / 1.2, high * 1.2, start, end, logarithmic=True)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
    if chart.from_zero:
        highest = max(point.high for point in points)
        return Scale(0.0, 1.06 * highest if highest > 0 else 1.0, start, end)
    return Scale(low - margin, high + margin, start, end)


def _axes(chart: Chart, x: Scale, y: Scale) -> list[str]:
    levels = {value for curve in chart.curves.values() for _, value in curve if math.isfinite(value)}
    values = powers(y.low, y.high) if y.logarithmic else ticks(y.low, y.high, 4)
    if len(levels) == 1 and not chart.from_zero:  # a constant: only its value is labelled
        values = list(levels)
    lines = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
             f'<text x="{LEFT - 7}" y="{y(value) + 4:.1f}" text-anchor="end">{chart.number(value)}</text>'
             for value in values]
    steps = [step for step in ticks(x.low, x.high, 5) if step == int(step) and step > 0]
    lines += [f'<text x="{min(x(step), WIDTH - RIGHT - 3 * len(number(step))):.1f}" y="{HEIGHT - BOTTOM + 21}" '
              f'text-anchor="middle">{number(step)}</text>' for step in steps]
    return [*lines, f'<text x="{LEFT - 7}" y="{HEIGHT - BOTTOM + 21}" text-anchor="end">step</text>']


def _phase(x: Scale, name: str, first: int, last: int, *, shaded: bool) -> str:
    """The background of one phase, and its name above the plot if there is room for it."""
    left, width = x(first), x(min(last, x.high)) - x(first)
    background = f'<rect class="phase{shaded:d}" x="{left:.1f}" width="{width:.1f}" y="{TOP}" ' \
             f'height="{HEIGHT - BOTTOM - TOP}"/>'
    fits = name[:max(0, int(width / 6.5))]
    shown = name if fits == name else f"{fits[:-1]}…" if len(fits) > 3 else ""
    return f'{background}<text class="phase" x="{left + 2:.1f}" y="{TOP - 8}">{escape(shown)}</text>'


def _curve(points: Sequence[Point], x: Scale, y: Scale, kind: str) -> str:
    """The line of means, the band between the lowest and highest values, and dots if there are few points."""
    def place(value: Callable[[Point], float]) -> list[str]:
        return [f"{x(point.step):.1f},{min(max(y(value(point)), TOP), HEIGHT - BOTTOM):.1f}" for point in points]

    line, shown = place(lambda point: point.mean), ""
    if any(point.low < point.high for point in points):
        low = [max(point.low, y.low) for point in points]
        bounds = [f"{x(point.step):.1f},{min(y(value), HEIGHT - BOTTOM):.1f}"
                  for point, value in zip(points, low, strict=True)]
        shown = f'<polygon class="band {kind}" points="{" ".join(place(lambda point: point.high) + bounds[::-1])}"/>'
    shown += f'<polyline class="{kind}" points="{" ".join(line)}"/>'
    if len(points) <= DOTS:
        shown += "".join('<circle class="{}" cx="{}" cy="{}" r="2.6"/>'.format(kind, *place.split(","))
                         for place in line)
    return shown


def _columns(chart: Chart, curves: dict[str, list[Point]], x: Scale) -> list[str]:
    """Vertical strips that show the values at their steps under the mouse."""
    width = (x.end - x.start) / COLUMNS
    points_in: dict[int, dict[str, Point]] = {}
    for name, points in curves.items():
        for point in points:
            points_in.setdefault(min(COLUMNS - 1, int((x(point.step) - x.start) / width)), {})[name] = point
    return [f'<rect class="values" x="{x.start + column * width:.1f}" width="{width:.1f}" y="{TOP}" '
            f'height="{HEIGHT - BOTTOM - TOP}"><title>' + "\n".join(
                escape(f"step {point.step:,}: {f'{name} ' if len(curves) > 1 else ''}{chart.number(point.mean)}")
                for name, point in found.items()) + "</title></rect>" for column, found in sorted(points_in.items())]


def _alt_text(chart: Chart) -> str:
    """The chart as text, for screen readers."""
    ends = "; ".join(f"{name} from {chart.number(curve[0][1])} to {chart.number(curve[-1][1])}"
                     for name, curve in chart.curves.items())
    return f"{chart.title} over {chart.last:,} steps: {ends}"
