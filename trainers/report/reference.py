"""The figures of a source beside those of a run, epoch by epoch: as curves, and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from markupsafe import Markup

from drumbeat.configs.reference import TRAINING_LOSS
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.schema import Config
from drumbeat.trainers.position import build_schedules
from drumbeat.trainers.report import page
from drumbeat.trainers.report.charts import number
from drumbeat.trainers.report.events import Curve, Events


@dataclass(frozen=True)
class Epoch:
    """An epoch of the source's table."""

    phase: str
    number: int
    """From 1, in its phase."""
    first: int
    """Steps before it."""
    last: int
    """Steps at its end. Less than or equal to `first` if the run has no such epoch."""
    source: Mapping[str, float]
    """The source's figures by curve."""
    run: Mapping[str, float] = field(default_factory=dict)
    """The run's: of a validation metric the value at the end of the epoch, of the training loss the mean of the points
    of its curve in the epoch. Without those that do not exist (yet)."""


def epochs(config: Config, events: Events, progress: Progress) -> list[Epoch]:
    """The epochs of the source's table. Without the size of the training set, which an unstarted run does not know,
    the run has no epochs."""
    found, before = [], 0
    reached = config.tracking.every_steps - 1 + max((points[-1][0] for points in events.curves.values()), default=-1)
    samples = progress.data.get("samples")
    schedules = build_schedules(config, samples, progress) if samples else []
    for name, schedule in zip_longest(config.phases, schedules):
        curves = config.reference.curves.get(name, {})
        last = 0
        for epoch in range(1, 1 + max(map(len, curves.values()), default=0)):
            first, last = last, schedule.steps_until(epoch) if schedule else 0
            source = {curve: values[epoch - 1] for curve, values in curves.items() if epoch <= len(values)}
            own = {curve: _value(events.curves.get(curve, []), curve, before + first, before + last)
                   for curve in source} if first < last <= reached - before else {}
            found.append(Epoch(name, epoch, before + first, before + last, source,
                               {curve: value for curve, value in own.items() if value is not None}))
        before += schedule.steps if schedule else 0
    return found


def _value(points: Curve, curve: str, first: int, last: int) -> float | None:
    """The run's figure of an epoch; None if there is no point."""
    if curve != TRAINING_LOSS:
        return dict(points).get(last)
    inside = [value for step, value in points if first < step <= last]
    return math.fsum(inside) / len(inside) if inside else None


def reference_curves(table: list[Epoch]) -> dict[str, Curve]:
    """The source's curves. A training loss, which is the mean of an epoch, is drawn in the middle of it."""
    found: dict[str, Curve] = {}
    for epoch in table:
        for curve, value in epoch.source.items():
            if epoch.last > epoch.first:
                step = (epoch.first + epoch.last) // 2 if curve == TRAINING_LOSS else epoch.last
                found.setdefault(curve, []).append((step, value))
    return found


def reference_table(config: Config, table: list[Epoch]) -> Markup:
    """The source's figures, the run's and their differences, epoch by epoch; nothing without a reference."""
    curves = list(dict.fromkeys(curve for epoch in table for curve in epoch.source))
    several = len({epoch.phase for epoch in table}) > 1
    titles = ["epoch", *(title for curve in curves for title in (f"{_plain(curve)}: source", "run", "difference"))]
    rows = [[f"{epoch.phase} {epoch.number}" if several else str(epoch.number),
             *(cell for curve in curves for cell in _cells(epoch, curve))] for epoch in table]
    source = page.facts([("source", config.reference.source)])
    return Markup().join([source, page.table(titles, rows)]) if rows else Markup()


def _cells(epoch: Epoch, curve: str) -> Iterator[str]:
    source, own = epoch.source.get(curve), epoch.run.get(curve)
    yield "" if source is None else number(source)
    yield "" if own is None else number(own)
    yield "" if source is None or own is None else f"{round(own - source, 4) + 0:+.4f}"


def _plain(curve: str) -> str:
    """The name of a curve as text."""
    group, _, name = curve.partition("/")
    return f"{'training' if group == 'train' else group} {name.replace('_', ' ')}"
