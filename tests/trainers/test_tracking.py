"""Curves without a step twice; contact sheets: gray stays gray after normalising, every image in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from drumbeat.configs.run.folder import RunDir
from drumbeat.data.images import Normalize
from drumbeat.trainers.tracking import Tracker, contact_sheet


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


def test_normalize_is_the_textbook_formula() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    ours = Normalize(mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.3])(images)
    torch.testing.assert_close(ours, (images / 255 - mean) / std)


def test_an_attempt_that_was_killed_before_its_first_checkpoint_leaves_no_points(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for steps in (5, 3):
        tracker = Tracker(run, step=0, config_text="name: x")
        for step in range(1, steps + 1):
            tracker.scalars(step, {"train/loss": float(steps)})
        tracker.close()
    events = EventAccumulator(str(run.tensorboard)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 3.0), (2, 3.0), (3, 3.0)]
