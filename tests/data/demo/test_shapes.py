"""Drawn shapes: the mask tells what is in the image, and edges do not count."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from drumbeat.data import SegmentationFolder
from drumbeat.data.demo.shapes import CLASSES, IGNORED, SIDE, draw_shapes, write_shapes


def test_masks_have_the_classes_and_edges_that_do_not_count() -> None:
    random = np.random.default_rng(0)
    masks = [draw_shapes(random)[1] for _ in range(20)]
    assert set(np.unique(masks).tolist()) == {*range(len(CLASSES)), IGNORED}
    assert 0.02 < np.mean(np.array(masks) == IGNORED) < 0.1


def test_a_shape_has_one_colour_in_the_image() -> None:
    """Within 10 standard deviations of its noise, where one shape is alone in its image."""
    random = np.random.default_rng(0)
    drawn = [draw_shapes(random) for _ in range(30)]
    pixels, mask = next((pixels, mask) for pixels, mask in drawn if len(np.unique(mask)) == 3)
    inside = pixels[(mask != 0) & (mask != IGNORED)].astype(float)
    assert inside.shape[0] > 50
    assert (inside.std(0) < 10).all()


def test_the_folders_are_those_of_a_segmentation_set(tmp_path: Path) -> None:
    assert all(nothing is None for nothing in write_shapes(tmp_path, np.random.default_rng(0), (3, 2)))  # type: ignore[func-returns-value]
    samples = SegmentationFolder(root=str(tmp_path / "train"), classes=CLASSES)
    assert len(samples) == 3
    assert samples[2][1].shape == (SIDE, SIDE)
