"""Masks of 0 and 255, classes that do not occur, and masks of which nothing counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drumbeat.configs.errors import Fault
from drumbeat.data import SegmentationFolder
from drumbeat.trainers.commands.batch_checks import mask_fault
from drumbeat.trainers.doctor.masks import mask_findings, masks_of
from drumbeat.trainers.doctor.subject import Subject
from tests.tiny import Pictures


def drawn(root: Path, values: list[list[int]]) -> SegmentationFolder:
    """Images whose masks have columns of these values."""
    for number, row in enumerate(values):
        for kind, pixels in (("images", np.zeros((4, len(row), 3), np.uint8)),
                             ("masks", np.tile(np.array(row, np.uint8), (4, 1)))):
            (root / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"{number}.png")
    return SegmentationFolder(root=str(root), classes=["ground", "disc", "square"])


@pytest.mark.parametrize(("values", "found"), [
    ([[0, 1, 2], [0, 0, 255]], []),
    ([[0, 0, 1], [0, 0, 255]], ["class_without_pixels"]),
    ([[0, 255, 0], [0, 0, 0]], ["masks_of_0_and_255"]),
    ([[0, 255, 0], [255, 255, 255]], ["masks_of_0_and_255", "ignored_masks"]),
    ([[0, 1, 2], [255, 255, 255]], ["ignored_masks"]),
    ([[0, 0, 0], [0, 0, 0]], ["class_without_pixels"])])
def test_findings_about_masks(tmp_path: Path, values: list[list[int]], found: list[str]) -> None:
    samples = drawn(tmp_path, values)
    assert [one.kind for one in mask_findings(Subject("train", samples))] == found
    fault = mask_fault(samples)
    assert isinstance(fault, Fault) == ("masks_of_0_and_255" in found)


def test_the_sentence(tmp_path: Path) -> None:
    fault = mask_fault(drawn(tmp_path, [[0, 255, 0]]))
    assert fault is not None
    assert fault.what == ("the masks hold only 0 and 255, which is ignored: are these masks of 0 and 255 for two "
                          "classes? (1 mask read)")


def test_other_sets_have_no_masks() -> None:
    assert masks_of(Pictures(n=3)) is None
    assert mask_fault(Pictures(n=3)) is None
