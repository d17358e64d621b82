"""A run's curves and pictures, read back from its TensorBoard events. Without torch."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path


@dataclass(frozen=True)
class Point:
    """One or several neighbouring points of a curve, as one."""

    step: int
    """Of the last of them."""
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Picture:
    """The newest picture under a tag."""

    step: int
    data: bytes
    """An encoded image, as the writer left it."""


@dataclass(frozen=True)
class Events:
    """What the event files of a run hold."""

    curves: dict[str, list[tuple[int, float]]]
    """(step, value) in the order of steps, by tag; of a step that was repeated after a restart, the later value."""
    pictures: dict[str, Picture]


def read_events(folder: Path) -> Events:
    """All scalars, and the newest picture of each tag; nothing where the folder is not there (yet)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    if not folder.is_dir():
        return Events({}, {})
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of every restart
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1}).Reload()
    tags = found.Tags()
    curves = {tag: sorted({event.step: float(event.value) for event in found.Scalars(tag)}.items())
              for tag in tags["scalars"]}
    pictures = {tag: Picture(events[-1].step, events[-1].encoded_image_string)
                for tag in tags["images"] if (events := found.Images(tag))}
    return Events(curves, pictures)


def thinned(curve: Sequence[tuple[int, float]], first: int, last: int, most: int) -> list[Point]:
    """At most `most` points between two steps: where there are more, neighbours become their mean, lowest and highest.
    Values that are no finite number are left out."""
    finite = [(step, value) for step, value in curve if math.isfinite(value) and first <= step <= last]
    if len(finite) <= most:
        return [Point(step, value, value, value) for step, value in finite]
    points = []
    for _, group in groupby(finite, lambda point: (point[0] - first) * most // (last - first + 1)):
        steps, values = zip(*group, strict=True)
        points.append(Point(steps[-1], math.fsum(values) / len(values), min(values), max(values)))
    return points
