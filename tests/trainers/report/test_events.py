"""Curves and images as they are read from event files, and how many points become few."""

from __future__ import annotations

import io
import math
from pathlib import Path

from PIL import Image

from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.report.events import Events, Point, read_events, thinned
from drumbeat.trainers.tracking import Tracker


def test_nan_and_inf_are_left_out() -> None:
    assert thinned([(1, math.nan), (2, 0.5), (3, math.inf)], 0, 3, 10) == [Point(2, 0.5, 0.5, 0.5)]


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


def test_a_run_that_has_not_started_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none") == Events({}, {})


def test_the_newest_image_of_each_tag(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    tracker = Tracker(run, run.claim_attempt(), step=0, config_text="")
    for step, size in ((1, 20), (7, 30)):
        tracker.picture(step, "train/head", Image.new("RGB", (size, 10)))
    tracker.close()
    image = read_events(run.tensorboard).images["train/head"]
    assert image.step == 7
    with Image.open(io.BytesIO(image.data)) as opened:
        assert opened.size == (30, 10)


def test_merged_points_keep_their_extremes_and_their_last_step() -> None:
    curve = [(step, float(value)) for step, value in enumerate([5, 1, 3, 8, 2, 2, 9], 1)]
    assert thinned(curve, 2, 5, 2) == [Point(3, 2.0, 1.0, 3.0), Point(5, 5.0, 2.0, 8.0)]
    assert thinned(curve, 2, 5, 4) == [Point(step, *[value] * 3) for step, value in curve[1:5]]
    assert thinned([], 0, 10, 5) == []
