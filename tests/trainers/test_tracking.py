"""Curves without a step twice; contact sheets: gray stays gray after normalising, every image in its place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Heartbeat
from drumbeat.configs.run.view import View
from drumbeat.data.images import Normalize
from drumbeat.trainers.tracking import Tracker, _fitted, contact_sheet
from tests.runs import write_plan


def test_a_gray_picture_normalised_as_imagenet_is_still_gray() -> None:
    gray = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8) * 4
    normal = Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])(gray)
    assert normal.shape == (1, 3, 8, 8)
    pixels = np.asarray(contact_sheet([normal[0]], columns=1, side=8)).astype(int)[6:14, 6:14]
    assert pixels.max() == 255
    assert np.abs(pixels - pixels[..., :1]).max() <= 1


def test_small_pictures_fill_their_place_and_titles_get_a_line() -> None:
    white = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    sheet = contact_sheet([white] * 5, ["cat / dog"] * 5, columns=4, side=100)
    assert sheet.size == (4 * 106 + 6, 2 * 124 + 6)
    assert sheet.getpixel((6 + 50, 6 + 18 + 50)) == (255, 255, 255)
    assert sheet.getpixel((6 + 3 * 106 + 50, 6 + 124 + 18 + 50)) == (24, 24, 28)


def test_a_heading_stands_above_the_grid() -> None:
    white = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    sheet = contact_sheet([white], ["cat\ndog"], columns=1, side=200, heading="misclassified samples")
    assert sheet.size == (212, 24 + 200 + 33 + 12)
    assert sheet.crop((0, 0, 212, 24)).getextrema()[0][1] > 200  # written in a light colour
    assert sheet.getpixel((6 + 100, 24 + 6 + 33 + 100)) == (255, 255, 255)


class Measuring(ImageDraw.ImageDraw):
    """Remembers the texts that it has measured."""

    def textlength(self, text: str, *arguments: Any, **options: Any) -> float:  # type: ignore[override]
        measured.append(text)
        return super().textlength(text, *arguments, **options)


measured: list[str] = []


@pytest.mark.parametrize("title", ["cat", "", "predicted 0.1234, 0.5678", "W" * 40, "i" * 100_000,
                                   ", ".join(map(str, range(1024)))], ids=len)
def test_a_title_is_cut_to_its_width(title: str) -> None:
    """With a few measurements of a few characters: a title of 1,024 numbers held an evaluation up for minutes."""
    measured.clear()
    draw = Measuring(Image.new("RGB", (8, 8)))
    shown = _fitted(draw, title, 192, 12)
    assert len(measured) < 12
    assert max(map(len, measured)) <= 192 + 3
    assert draw.textlength(shown, font_size=12) <= 192
    if shown != title:
        kept = shown.removesuffix("...")
        assert title.startswith(kept)
        assert draw.textlength(f"{title[:len(kept) + 1]}...", font_size=12) > 192


def test_normalize_is_the_textbook_formula() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    ours = Normalize(mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.3])(images)
    torch.testing.assert_close(ours, (images / 255 - mean) / std)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalize_knows_white_by_the_type(channels: int) -> None:
    normal = Normalize(mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.3])
    images = torch.randint(0, 256, (2, channels, 5, 5), dtype=torch.uint8)
    deep = torch.from_numpy(images.numpy().astype("uint16") * 257)
    for same in (deep, images / 255, (images / 255).double()):
        torch.testing.assert_close(normal(same), normal(images))
    values = normal(torch.tensor([[[[65534, 65535]]]], dtype=torch.uint16))[0, :, 0]
    assert (values[:, 1] > values[:, 0]).all()


def test_an_attempt_that_was_killed_before_its_first_checkpoint_leaves_no_points(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for steps in (5, 3):
        tracker = Tracker(run, run.claim_attempt(), step=0, config_text="name: x")
        for step in range(1, steps + 1):
            tracker.scalars(step, {"train/loss": float(steps)})
        tracker.close()
        for file in run.tensorboard.iterdir():  # a restart takes seconds; readers go by the second in the name
            *before, second, rest = file.name.split(".", 4)
            file.rename(file.with_name(".".join([*before, str(int(second) - 60), rest])))
    events = EventAccumulator(str(run.tensorboard)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 3.0), (2, 3.0), (3, 3.0)]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "tiny" / "run")
    write_plan(run)
    return run


def started(run: RunDir, step: int = 0) -> Tracker:
    """The tracker of the next attempt, whose launcher has begun it."""
    attempt = run.claim_attempt()
    run.write_status("running", attempt=attempt.number)
    return Tracker(run, attempt, step=step, config_text="name: x")


def test_a_superseded_attempt_overwrites_nothing(run: RunDir) -> None:
    """A rank 0 that was cut off for a while, and has not heard that the run went on without it and has finished."""
    first = started(run)
    first.status(now=True, step=5, loss=0.5)
    second = started(run, step=3)
    second.status(now=True, step=9, loss=0.25)
    run.write_status("finished", attempt=1, verdict="finished")
    before = View.read(run)
    first.status(now=True, step=6, loss=0.4, pause_reason="the disk is full")
    assert View.read(run) == before
    assert before.heartbeat and (before.state, before.heartbeat.step, before.heartbeat.loss) == ("finished", 9, 0.25)
    first.close()
    second.close()


def test_the_heartbeat_keeps_what_is_not_changed(run: RunDir) -> None:
    tracker = started(run, step=3)
    seconds = {"training": 1.0}
    tracker.status(now=True, phase="head", seconds=seconds)
    assert Heartbeat.require(run.attempt(0).heartbeat).step == 3
    seconds["training"] = 2.0  # as the clock goes on
    tracker.status(step=4)  # too early to be written
    assert Heartbeat.require(run.attempt(0).heartbeat).step == 3
    tracker.status(now=True)
    beat = Heartbeat.require(run.attempt(0).heartbeat)
    assert (beat.step, beat.phase, beat.seconds) == (4, "head", {"training": 2.0})
    assert abs(beat.time - time.time()) < 10
    tracker.close()


def test_a_disk_that_takes_no_heartbeat_ends_nothing(run: RunDir) -> None:
    tracker = started(run)
    run.attempts.rename(run.path / "gone")
    tracker.status(now=True, step=1)
    (run.path / "gone").rename(run.attempts)
    tracker.status(now=True)
    assert Heartbeat.require(run.attempt(0).heartbeat).step == 1
    tracker.close()
