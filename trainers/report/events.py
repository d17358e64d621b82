"""Reads the curves and images of a run from its TensorBoard events, without torch."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from drumbeat.configs.run.files import DamagedError, open_file

MAX_FILES = 500
"""The newest event files that are read. Each attempt writes one, and all are open at the same time."""
MAX_BYTES = 2**30
"""Larger event files are not read."""

Curve = list[tuple[int, float]]
"""(step, value) in the order of steps."""


@dataclass(frozen=True)
class Point:
    """A point of a curve, or the mean of several neighbouring points."""

    step: int
    """The last of their steps."""
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Image:
    """The newest image of a tag."""

    step: int
    data: bytes
    """The encoded image."""


@dataclass(frozen=True)
class Events:
    """The contents of a run's event files."""

    curves: dict[str, Curve]
    """By tag; of a step that was repeated after a restart, the later value."""
    images: dict[str, Image]


def read_events(folder: Path) -> Events:
    """All scalars, and the newest image of each tag; empty if the folder does not exist (yet). Files that `open_file`
    refuses are left out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    if not folder.is_dir():
        return Events({}, {})
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns at every restart
    with ExitStack() as opened, TemporaryDirectory() as links:
        for path in sorted(folder.glob("*tfevents*"))[-MAX_FILES:]:
            with suppress(FileNotFoundError, DamagedError):
                file = opened.enter_context(open_file(path, MAX_BYTES))
                Path(links, path.name).symlink_to(f"/proc/self/fd/{file.fileno()}")
        found = EventAccumulator(links, size_guidance={"scalars": 0, "images": 1}).Reload()
    tags = found.Tags()
    curves = {tag: sorted({event.step: float(event.value) for event in found.Scalars(tag)}.items())
              for tag in tags["scalars"]}
    images = {tag: Image(events[-1].step, events[-1].encoded_image_string)
                for tag in tags["images"] if (events := found.Images(tag))}
    return Events(curves, images)


def thinned(curve: Sequence[tuple[int, float]], first: int, last: int, most: int) -> list[Point]:
    """At most `most` points between two steps: with more, neighbours are merged into their mean, lowest and highest
    value. NaN and Inf are left out."""
    finite = [(step, value) for step, value in curve if math.isfinite(value) and first <= step <= last]
    if len(finite) <= most:
        return [Point(step, value, value, value) for step, value in finite]
    points = []
    for _, group in groupby(finite, lambda point: (point[0] - first) * most // (last - first + 1)):
        steps, values = zip(*group, strict=True)
        points.append(Point(steps[-1], math.fsum(values) / len(values), min(values), max(values)))
    return points
