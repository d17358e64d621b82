"""Images: files that cannot be read or are left out, sizes, colors, depth, and pixels without content."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drumbeat.configs.layers import short
from drumbeat.configs.schema import Config, Data
from drumbeat.data.image_files import is_data, is_image, suffixes
from drumbeat.data.images import ImageFolder, Normalize
from drumbeat.trainers.build import build_batch_transforms, image_set
from drumbeat.trainers.doctor.findings import Finding, of, plural
from drumbeat.trainers.doctor.sample_checks import SampleCheck, file_of
from drumbeat.trainers.doctor.subject import Subject
from drumbeat.trainers.sample_counts import allowed

LONG = 4.0
"""An image is long if its longer side is this many times the shorter one."""
FEW_LEVELS = 64
"""Fewer gray levels than this are too few for an image of 16 bits."""
GRAY = ("1", "L", "LA", "I", "F")
"""Beginnings of Pillow's modes of images without color."""
OTHER_IMAGES = {".avif", ".heic", ".heif", ".nii", ".tga", ".svg", ".ico", ".psd", ".npy", ".nrrd", ".mha", ".jxl"}
"""Suffixes of files that are probably images, and are perhaps not read here."""


def image_facts(subject: Subject) -> tuple[str, str]:
    """Label and text: how many samples were read, and the sizes and modes of their files."""
    sizes = [check.size for check in subject.good if check.mode]
    if not sizes:
        return "read", f"{subject.name:<11}{subject.read}"
    modes = ", ".join(sorted({check.mode for check in subject.good}))
    return "images", (f"{subject.name:<11}{subject.read} read: {_range([min(size) for size in sizes])} x "
                      f"{_range([max(size) for size in sizes])} px, {modes}")


def _range(values: Sequence[int]) -> str:
    return f"{min(values):,}" if min(values) == max(values) else f"{min(values):,}-{max(values):,}"


def sample_findings(subject: Subject, data: Data | None = None) -> Iterator[Finding]:
    """What is wrong with the samples that were read. `data` tells what the config does about those that cannot be."""
    name, n = subject.name, len(subject.checks)
    if bad := [_error(subject, check) for check in subject.checks if check.error]:
        yield Finding("problem", "unreadable", f"{len(bad):,} of {n:,} samples of {name} cannot be read",
                      f"Restore or remove them. {_skipping(len(bad), n, data or Data())}", bad)
    if odd := [subject.sample(check.index) for check in subject.good if check.nonfinite]:
        yield Finding("problem", "nonfinite", of(len(odd), n, "sample", name, "has", "have") + " a NaN or Inf",
                      "The loss becomes NaN with the first of them: correct or remove them.", odd)
    if flat := [subject.sample(check.index) for check in subject.good if check.constant]:
        yield Finding("warning", "constant",
                      of(len(flat), n, "image", name, "has", "have") + " the same value everywhere",
                      "They show nothing: remove them.", flat)
    if long := [(max(check.size) / min(check.size), check) for check in subject.good
                if check.mode and max(check.size) > LONG * min(check.size)]:
        long.sort(key=lambda item: -item[0])
        yield Finding("warning", "long_images", of(len(long), n, "image", name, "is", "are")
                      + f" more than {LONG:g} times as long as wide",
                      "A crop shows little of them, and a resize to a square distorts them.",
                      [f"{subject.sample(check.index)}  {check.size[0]:,} x {check.size[1]:,}" for _, check in long])
    yield from _depth(subject)
    yield from _colors(subject)


def _error(subject: Subject, check: SampleCheck) -> str:
    """The error of a sample, with its file, or its name, as a reader knows it."""
    file, sample = file_of(subject.samples, check.index) or "", subject.sample(check.index)
    shown = (check.error.replace(file, sample) if file else check.error).removeprefix("cannot read the image ")
    return shown if sample in shown else f"{sample}: {shown}"


def _skipping(bad: int, checked: int, data: Data) -> str:
    """What `data.on_error` does or can do about samples that cannot be read, and the limit that it needs."""
    share = math.ceil(100 * bad / checked) / 100
    more = "" if bad <= allowed(data.max_skipped, checked) else f"data.max_skipped={share:g}"
    if data.on_error != "skip":
        return f"To use the next sample in place of each: data.on_error=skip {more}".rstrip()
    return f"data.on_error=skip would skip more than data.max_skipped allows: {more}" if more else (
        "Until then, the next sample is used in place of each.")


def _depth(subject: Subject) -> Iterator[Finding]:
    deep = [check for check in subject.good if check.levels is not None]
    if deep:
        levels = [check.levels or 0 for check in deep]
        yield Finding("problem" if min(levels) < FEW_LEVELS else "warning", "lost_depth",
                      of(len(deep), len(subject.checks), "image", subject.name, "has 16 bits and is",
                         "have 16 bits and are") + f" read with 8: {_range(levels)} different values are left",
                      "Images of 12 bits keep 4. Read them with all (depth: 16), and tell which values are black and "
                      "white (value_range).",
                      [f"{subject.sample(check.index)}  {check.levels} values"
                       for check in sorted(deep, key=lambda check: check.levels or 0)])


def _colors(subject: Subject) -> Iterator[Finding]:
    """Images with and without color in one set: a fault if a class can be told by it."""
    files = [check for check in subject.good if check.mode]
    gray = [check for check in files if check.mode.startswith(GRAY)]
    if not 0 < len(gray) < len(files):
        return
    shares: dict[str, list[bool]] = defaultdict(list)
    for check in files:
        shares[subject.label(check.index)].append(check.mode.startswith(GRAY))
    means = {label: float(np.mean(values)) for label, values in shares.items()}
    differ = len(means) > 1 and max(means.values()) - min(means.values()) > 0.5
    yield Finding("warning" if differ else "note", "mixed_colors",
                  of(len(gray), len(files), "image", subject.name, "is", "are")
                  + " grayscale, and the others have color",
                  "A model can tell these classes apart by the color alone: convert all to grayscale (channels: 1)."
                  if differ else "All are converted to the set's `channels`.",
                  [f"{label}: {mean:.0%} grayscale" for label, mean in means.items()] if differ else
                  [subject.sample(check.index) for check in (gray if 2 * len(gray) < len(files) else
                                                             [one for one in files if one not in gray])])


def left_out(subjects: Sequence[Subject]) -> Iterator[Finding]:
    """Files in the folders of images that are not read."""
    for root in dict.fromkeys(images.root for one in subjects
                              if isinstance(images := image_set(one.samples), ImageFolder)):
        likely, other = _left_out(root)
        for severity, files, advice in (
                ("warning", likely, f"These suffixes are read: {', '.join(suffixes())}. Convert or rename the files."),
                ("note", other, "")):
            if files:
                counts = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in
                                   Counter(Path(file).suffix.lower() for file in files).most_common())
                one = len(files) == 1
                kind = (" that may be an image" if one else " that may be images") if severity == "warning" else ""
                yield Finding(severity, "left_out",  # type: ignore[arg-type]
                              f"{plural(len(files), 'file')}{kind} in {short(Path(root))} {'is' if one else 'are'} "
                              f"left out: {counts}", advice,
                              [short(Path(file)) for file in files])


def _left_out(root: str) -> tuple[list[str], list[str]]:
    """The files below a folder that are not read, without those that are no data: those that are probably images, such
    as images beside the class folders, and others."""
    likely: list[str] = []
    other: list[str] = []
    for folder, below, files in os.walk(root):
        below[:] = sorted(filter(is_data, below))
        for name in sorted(filter(is_data, files)):
            file = f"{folder}/{name}"
            if not is_image(file):
                (likely if Path(name).suffix.lower() in OTHER_IMAGES else other).append(file)
            elif folder == root:
                likely.append(file)
    return likely, other


def pixel_facts(config: Config, checks: Sequence[SampleCheck]) -> tuple[str, list[Finding]]:
    """Mean and standard deviation of the pixels as text, and a finding if the config normalizes with others; '' if the
    samples are not images of the same number of channels."""
    sums = [check.sums for check in checks if check.sums]
    if not sums or len({len(one) for one in sums}) > 1:
        return "", []
    totals = np.array(sums).sum(axis=0).reshape(-1, 3)
    mean = totals[:, 0] / totals[:, 2]
    deviation = np.sqrt(np.maximum(totals[:, 1] / totals[:, 2] - mean**2, 0))
    measured = f"mean {_numbers(mean)}, std {_numbers(deviation)}"
    for module in build_batch_transforms(config):
        if isinstance(module, Normalize):
            scale, shift = (module.get_buffer(name).flatten().numpy() for name in ("scale", "shift"))
            used_deviation = 1 / (255 * scale)
            used_mean = -shift * used_deviation
            with np.errstate(divide="ignore", invalid="ignore"):
                far = not (np.abs(used_mean - mean).max() <= 0.15 and
                           np.abs(np.log(used_deviation / deviation)).max() <= 0.5)
            used = f"the config normalizes with {_numbers(used_mean)} and {_numbers(used_deviation)}"
            if far and not (config.initialize.weights or config.model.get("weights")):
                return measured, [Finding("note", "normalization", f"the pixels have {measured}, and {used}",
                                          "Training may be slower. With pretrained weights, keep what they were "
                                          "trained with.")]
            return f"{measured}; {used}", []
    return measured, []


def _numbers(values: Any) -> str:
    return "/".join(f"{value:.3f}" for value in np.asarray(values).tolist())
