"""Checks the data before a long run: classes, unreadable files, leakage, pixel statistics, speed.

    python -m drumbeat.trainers.commands.doctor [--all] [--sheet FILE] < config      what `drumbeat doctor CONFIG` runs

Exit code 1 if there are problems: files that cannot be read, or that are in the training set and in another one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import file_digest
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.layers import Layer, short
from drumbeat.configs.load import build_config
from drumbeat.configs.preconditions import with_hint
from drumbeat.configs.schema import Config
from drumbeat.configs.terminal import print_text_only
from drumbeat.data.images import Normalize
from drumbeat.data.loader import Samples, ShardedBatchSampler
from drumbeat.data.order import Schedule
from drumbeat.data.sampling import LengthBuckets, classes_of, labels_of
from drumbeat.data.text import padding_waste
from drumbeat.trainers.build import (
    Sets,
    build_batch_transforms,
    build_sets,
    build_stream,
    image_set,
)
from drumbeat.trainers.commands.sample_checks import SampleCheck, check_samples
from drumbeat.trainers.commands.throughput import decode, mean_size, rate, step_rate
from drumbeat.trainers.contact_sheet import draw_sheet, training_fetcher
from drumbeat.trainers.set_notes import notes_of

NAMES = ("train", "validation", "test")


@dataclass
class Findings:
    """The lines to print, and how many of them are problems."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    problems: int = 0

    def add(self, label: str, text: str) -> None:
        self.lines.append((label, text))

    def add_problem(self, label: str, text: str) -> None:
        self.problems += 1
        self.lines.append((label, text))

    def __str__(self) -> str:
        previous, rows = "", []
        for label, text in self.lines:
            rows.append(f"{label if label != previous else '':<11}{text}")
            previous = label
        return "\n".join(rows)


def examine(config: Config, *, everything: bool, sheet: Path) -> Findings:
    """All findings. Raises `PreflightError` if the sets cannot be built."""
    found = Findings()
    sets = build_sets(config)
    named = [(name, samples) for name in NAMES if (samples := getattr(sets, name)) is not None]
    for name, samples in named:
        _classes(found, name, samples)
    for note in notes_of(sets):
        found.add("note", note)
    for name, samples in named:
        checks = list(check_samples(sets, samples, name, everything=everything))
        _files(found, name, samples, checks)
        if name == "train":
            _pixels(found, config, checks)
    for name, samples in named[1:]:
        _leaks(found, sets.train, name, samples)
    if getattr(sets.train, "lengths", None) is not None:
        _lengths(found, config, sets.train)
    _speed(found, config, sets)
    _draw(found, config, sets, sheet)
    return found


def _classes(found: Findings, name: str, samples: Samples) -> None:
    try:
        labels = labels_of(samples)
    except ValueError:
        found.add("samples", f"{name:<11}{len(samples):,}")
        return
    counts = np.bincount(labels)
    titles = classes_of(samples) or list(map(str, range(len(counts))))
    shown = [f"{title} {count:,} ({count / len(labels):.0%})" for title, count in zip(titles, counts, strict=False)]
    more = f", and {len(shown) - 6} more" if len(shown) > 6 else ""
    found.add("samples", f"{name:<11}{len(labels):,}: {', '.join(shown[:6])}{more}")
    if counts.min() * 10 < counts.max():
        found.add("samples", f"{'':<11}the rarest class has {counts.min():,}; drumbeat.data.ClassBalanced helps")


def _files(found: Findings, name: str, samples: Samples, checks: Sequence[SampleCheck]) -> None:
    good = [check for check in checks if not check.error]
    bad = [check for check in checks if check.error]
    of = "all" if len(checks) == len(samples) else f"{len(checks):,} of {len(samples):,}"
    if sizes := [check.size for check in good if check.mode]:
        short_sides, long_sides = [min(size) for size in sizes], [max(size) for size in sizes]
        modes = ", ".join(sorted({check.mode for check in good}))
        found.add("images", f"{name:<11}{of} read: {_range(short_sides)} x {_range(long_sides)} px, {modes}")
    else:
        found.add("read", f"{name:<11}{of}")
    for check in bad[:5]:
        found.add_problem("unreadable", f"{name:<11}{check.error}")
    if len(bad) > 5:
        found.add_problem("unreadable", f"{name:<11}... and {len(bad) - 5} more")


def _range(values: Sequence[int]) -> str:
    return f"{min(values):,}" if min(values) == max(values) else f"{min(values):,}-{max(values):,}"


def _pixels(found: Findings, config: Config, checks: Sequence[SampleCheck]) -> None:
    """Mean and standard deviation of the pixels, compared with those that the config normalizes with."""
    sums = [check.sums for check in checks if check.sums]
    if not sums or len({len(one) for one in sums}) > 1:
        return
    totals = np.array(sums).sum(axis=0).reshape(-1, 3)
    mean = totals[:, 0] / totals[:, 2]
    deviation = np.sqrt(np.maximum(totals[:, 1] / totals[:, 2] - mean**2, 0))
    text = f"mean {_numbers(mean)}, std {_numbers(deviation)}"
    for module in build_batch_transforms(config):
        if isinstance(module, Normalize):
            scale, shift = (module.get_buffer(name).flatten().numpy() for name in ("scale", "shift"))
            given_deviation = 1 / (255 * scale)
            given_mean = -shift * given_deviation
            text += f"; the config normalizes with {_numbers(given_mean)} and {_numbers(given_deviation)}"
            far = np.abs(given_mean - mean).max() > 0.15 or np.abs(np.log(given_deviation / deviation)).max() > 0.5
            if far and not config.model.get("weights"):
                text += ", which differ from the data: training may be slower"
    found.add("pixels", text)


def _numbers(values: Any) -> str:
    return "/".join(f"{value:.3f}" for value in np.asarray(values).tolist())


def _leaks(found: Findings, train: Samples, name: str, samples: Samples) -> None:
    """Files that are in both sets, byte for byte. Only files of the same size are read."""
    both = [_by_size(one) for one in (train, samples)]
    if not all(both):
        return
    pairs = []
    for size in both[0].keys() & both[1].keys():
        digests = defaultdict(list)
        for file in both[0][size]:
            digests[_digest(file)].append(file)
        pairs += [(file, digests[digest][0]) for file in both[1][size] if (digest := _digest(file)) in digests]
    for file, twin in sorted(pairs)[:5]:
        found.add_problem("leakage", f"{short(Path(file))}\n{'':<11}is the same file as {short(Path(twin))}")
    if len(pairs) > 5:
        found.add_problem("leakage", f"... and {len(pairs) - 5} more")
    if not pairs:
        found.add("leakage", f"no file of {name} is also in train")


def _by_size(samples: Samples) -> dict[int, list[str]]:
    """The image files of a set by their size in bytes."""
    images = image_set(samples)
    if images is None:
        return {}
    files: dict[int, list[str]] = defaultdict(list)
    indices = np.arange(len(samples)) if images is samples else samples.indices  # type: ignore[attr-defined]
    for index in indices.tolist():
        files[int(images.stamps[index, 0])].append(images.file(index))
    return files


def _digest(file: str) -> str:
    with open(file, "rb") as opened:
        return file_digest(opened, "sha256").hexdigest()


def _lengths(found: Findings, config: Config, samples: Any) -> None:
    """The lengths of the samples, and the fraction of padding in the first batches."""
    lengths = np.asarray(samples.lengths)
    middle, most = np.percentile(lengths, [50, 95])
    found.add("lengths", f"median {middle:.0f}, 95 % up to {most:.0f}, longest {lengths.max():,}")
    table = Schedule(len(lengths), config.batch_size, 1)
    stream = build_stream(config, samples, 0)
    window = config.data.bucket_batches or 50
    sorted_batches = LengthBuckets(table, stream, lengths, batches=window, rank=0, world_size=1)
    waste = [padding_waste(lengths, (stream.indices(np.asarray(positions)) for positions in islice(several, 500)))
             for several in (sorted_batches, ShardedBatchSampler(table, rank=0, world_size=1))]
    found.add("padding", f"{waste[0]:.0%} of a batch with data.bucket_batches={window}, {waste[1]:.0%} without")


def _speed(found: Findings, config: Config, sets: Sets) -> None:
    """The speed of one loader worker, of decoding alone, and of the model on this machine."""
    phase = next(iter(config.phases.values()))
    assert phase is not None
    batch = min(phase.batch_size or config.batch_size, 16)
    fetch = training_fetcher(config, sets)
    torch.set_num_threads(1)
    first = fetch.__getitems__(range(batch))
    delivered = rate(lambda step: len(fetch.__getitems__(range(step * batch, (step + 1) * batch)).positions))
    text = f"one loader worker reads {delivered:,.0f} samples/s"
    images = image_set(sets.train)
    decoding = 0.0
    if images is not None:
        decoding = rate(partial(decode, images))
        text += f"; decoding alone {decoding:,.0f}/s"
    found.add("speed", text)

    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    taken = step_rate(config, sets, first, device)
    where = "this machine's first GPU" if device.type == "cuda" else f"this machine's {cores} cores"
    found.add("speed", f"phase {next(iter(config.phases))} trains {taken:,.0f} samples/s on {where}, batch {batch}")
    workers = taken / delivered
    found.add("advice", f"use {max(1, round(workers + 0.5))} loader workers for each such device"
              if workers > 0.9 else "one loader worker for each such device is enough")
    if decoding and config.data.cache is None and images is not None:
        without = 1 / max(1 / delivered - 1 / decoding, 1e-6)
        size = mean_size(images) * len(images)
        useful = "is worth it" if delivered < taken * 1.5 and without > 2 * delivered else "is not needed"
        found.add("advice", f"data.cache {useful}: {without:,.0f} samples/s from it; it takes {size / 1e6:,.0f} MB")


def _draw(found: Findings, config: Config, sets: Sets, sheet: Path) -> None:
    """Draws a sheet of training samples as the model sees them."""
    batch = training_fetcher(config, sets).__getitems__(range(min(24, len(sets.train))))
    if draw_sheet(config, sets, batch, sheet):
        found.add("sheet", short(sheet))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--sheet", type=Path, default=Path("doctor.png"))
    args = parser.parse_args()
    config = build_config([Layer(values=json.load(sys.stdin), origin="config")])
    try:
        found = examine(config, everything=args.all, sheet=args.sheet.absolute())
    except PreflightError as error:
        print(PreflightError(*with_hint(error.faults, config.data.download_hint)), file=sys.stderr)
        return error.exit_code
    print(found)
    print(f"verdict    {'no problems found' if not found.problems else f'{found.problems} problems, see above'}")
    return int(found.problems > 0)


if __name__ == "__main__":
    print_text_only()
    sys.exit(main())
