"""Masks: classes that never occur, masks of which nothing counts, and masks of 0 and 255 for two classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drumbeat.data.loader import Samples
from drumbeat.data.segmentation import SegmentationFolder
from drumbeat.data.splits import underlying
from drumbeat.trainers.doctor.findings import Finding, plural
from drumbeat.trainers.doctor.subject import Subject

MOST = 100
"""Masks of a set that are counted, from all over it."""
REMEDY = "If 255 is the second class, say so: values: [0, 255]"


@dataclass(frozen=True)
class Masks:
    """What the masks of some samples hold."""

    classes: Sequence[str]
    ignore_index: int
    pixels: NDArray[np.int64]
    """[256]: of each value."""
    read: int
    ignored: Sequence[int]
    """The samples of which no pixel counts."""

    @property
    def only_background(self) -> bool:
        """Whether there are two values: 0, and one that does not count."""
        return set(np.flatnonzero(self.pixels).tolist()) == {0, self.ignore_index} != {0}


def masks_of(samples: Samples) -> Masks | None:
    """The masks of some samples of a `SegmentationFolder`, or of a part of one; None for other sets. Masks that cannot
    be read are left out."""
    chosen = np.unique(np.linspace(0, len(samples) - 1, MOST).astype(np.int64))
    if (found := underlying(samples, SegmentationFolder, chosen)) is None:
        return None
    folder, rows = found
    pixels, read, ignored = np.zeros(256, dtype=np.int64), 0, []
    for index, row in zip(chosen.tolist(), rows.tolist(), strict=True):
        with suppress(OSError, ValueError):  # the check of the samples names it
            counts = np.bincount(folder.target(row).numpy().ravel(), minlength=256)
            pixels += counts
            read += 1
            if not 0 <= folder.ignore_index < 256 or counts.sum() > counts[folder.ignore_index]:
                continue
            ignored.append(index)
    return Masks(folder.classes, folder.ignore_index, pixels, read, ignored)


def only_background_text(masks: Masks) -> str:
    """A sentence for `Masks.only_background`."""
    return (f"the masks hold only 0 and {masks.ignore_index}, which is ignored: are these masks of 0 and 255 for two "
            f"classes? ({plural(masks.read, 'mask')} read)")


def mask_findings(subject: Subject) -> Iterator[Finding]:
    """What is wrong with the masks of a set."""
    masks = masks_of(subject.samples)
    if masks is None or not masks.read:
        return
    missing = [name for name, count in zip(masks.classes, masks.pixels, strict=False) if not count]
    if masks.only_background:
        yield Finding("problem", "masks_of_0_and_255", f"{subject.name}: {only_background_text(masks)}", REMEDY)
    elif missing:
        yield Finding("warning", "class_without_pixels",
                      f"{len(missing)} of the {len(masks.classes)} classes occur in none of the "
                      f"{plural(masks.read, 'mask')} of {subject.name} that were read", "Such a class may never be "
                      "learned: are the class numbers of the masks those of the config?", missing)
    if masks.ignored:
        yield Finding("warning", "ignored_masks", f"no pixel counts in {plural(len(masks.ignored), 'mask')} of "
                      f"{subject.name}: all have the value {masks.ignore_index}", "Remove these samples.",
                      [subject.sample(index) for index in masks.ignored])
