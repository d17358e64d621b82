"""A comparison as one self-contained HTML file."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from drumbeat.trainers.comparison.bootstrap import Difference
from drumbeat.trainers.comparison.comparison import Comparison
from drumbeat.trainers.comparison.text import (
    bootstrap_rows,
    bootstrap_title,
    code_text,
    mean_text,
    missing_text,
    runs_text,
)
from drumbeat.trainers.report import page
from drumbeat.trainers.report.charts import Chart, draw
from drumbeat.trainers.report.events import Curve, read_events
from drumbeat.trainers.report.history import moment
from drumbeat.trainers.report.page import Figure

COLOURS = 6
NOT_DRAWN = ("train/epoch", "train/lr", "speed/")
"""Curves of these beginnings say nothing about which run is better."""


def comparison_page(found: Comparison) -> str:
    """The page."""
    labels = [group.label for group in found.groups]
    several = len(found.groups) > 1
    body = [
        page.head(", ".join(dict.fromkeys(group.name for group in found.groups)), "Comparison of runs",
                  state=f"{sum(len(group.runs) for group in found.groups)} runs", colour="odd",
                  text=f"{len(found.groups)} configs" if several else "one config", progress=None),
        page.section("Runs", page.facts((group.label, runs_text(group)) for group in found.groups)),
        page.section("Differences of predictions", *_bootstrap(found)) if several else Markup(),
        page.section("Metrics", page.table(["best checkpoint", *labels], [
            (name.replace("_", " "), *(mean_text(group, name) for group in found.groups)) for name in found.metrics]))
        if found.metrics else Markup(),
        page.section("Curves", page.grid(_curves(found))),
        page.section("Config", _table(labels, found.values)) if several else Markup(),
        page.section("Code", *_code(found)),
        page.section("Versions", _table(labels, found.versions)) if several else Markup(),
        page.footer(moment(time.time()), found.groups[0].runs[0].run.all_runs),
    ]
    return page.page("Comparison of runs", body)


def _bootstrap(found: Comparison) -> Iterator[Markup]:
    if found.paired is None:
        yield page.subtitle("To compare predictions on the same samples, evaluate each run on one set")
        yield page.listing(missing_text(found))
        return
    yield page.subtitle(bootstrap_title(found))
    for place, some in enumerate(found.differences, 1):
        heading, *rows = bootstrap_rows(found, place)
        widest = max((abs(bound) for one in some for bound in (one.low, one.high) if math.isfinite(bound)), default=1.0)
        yield page.table([*heading, ""], [(*row, _interval(one, widest)) for row, one in zip(rows, some, strict=True)])


def _interval(one: Difference, widest: float) -> Markup:
    """The interval as a line, the difference as a dot on it, and zero as a line across."""
    if math.isnan(one.low):
        return Markup()

    def place(value: float) -> str:
        return f"{100 + 92 * max(-1.0, min(1.0, value / (widest or 1.0))):.1f}"

    return Markup('<svg viewBox="0 0 200 20" width="200" height="20" role="img" aria-label="interval">'
                  '<line x1="100" x2="100" y1="1" y2="19" stroke="currentColor" stroke-opacity=".4"/>'
                  '<line x1="{}" x2="{}" y1="10" y2="10" stroke="currentColor" stroke-width="2"/>'
                  '<circle cx="{}" cy="10" r="3.5" fill="currentColor"/></svg>').format(
                      place(one.low), place(one.high), place(one.value))


def _curves(found: Comparison) -> Iterator[Figure]:
    """A chart for each curve, with a line for each run in the colour of its group."""
    colours = {group.label: number % COLOURS for number, group in enumerate(found.groups)}
    curves: dict[str, dict[str, Curve]] = {}
    of_run: dict[str, int] = {}
    for group in found.groups:
        for one in group.runs:
            label = group.label if len(group.runs) == 1 else f"{group.label}, seed {one.config.seed}, {one.run.id[-5:]}"
            of_run[label] = colours[group.label]
            for tag, curve in read_events(one.run.tensorboard).curves.items():
                if not tag.startswith(NOT_DRAWN) and any(math.isfinite(value) for _, value in curve):
                    curves.setdefault(tag, {})[label] = curve
    for tag, some in sorted(curves.items(), key=lambda pair: (pair[0].partition("/")[0] != "validation", pair[0])):
        title = tag.replace("_", " ").replace("/", " ")
        chart = Chart(title=title, curves=some, magnitudes=tag.endswith("loss"), colours=of_run)
        shown = {label: colour for label, colour in colours.items() if colour in {of_run[name] for name in some}}
        yield Figure(title, Markup(draw(chart, [], chart.last)), shown)


def _code(found: Comparison) -> Iterator[Markup]:
    first = found.groups[0].label
    for group, code in zip(found.groups[1:], found.code, strict=True):
        yield page.facts([(first, code.first), (group.label, code.second),
                          ("difference", code_text(code.first, code.second, code.files))])
        if code.diff:
            yield page.fold(f"what {group.label} changes", page.listing(code.diff))


def _table(labels: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> Markup:
    """What differs; nothing if all is the same."""
    return page.table(["", *labels], [(key, *values) for key, values in rows]) if rows else Markup()


def write_page(found: Comparison, file: Path) -> None:
    """Writes the page. Raises like `replacing`."""
    from drumbeat.configs.output_file import replacing
    from drumbeat.configs.terminal import visible

    with replacing(file) as temporary:
        temporary.write_text(visible(comparison_page(found)), encoding="utf-8", errors="backslashreplace")
