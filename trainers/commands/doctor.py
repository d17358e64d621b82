"""What a person would want to know of the data before spending hours on it.

    python -m drumbeat.trainers.commands.doctor [--all] [--sheet FILE] < config      what `drumbeat doctor CONFIG` runs

Exit code 1 where something is wrong with the data: files that cannot be read, or that train and judge alike.
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
from drumbeat.trainers.commands.sample_checks import Look, looks_at
from drumbeat.trainers.commands.throughput import decode, mean_size, rate, step_rate
from drumbeat.trainers.contact_sheet import draw_sheet, training_fetcher

NAMES = ("train", "validation", "test")


@dataclass
class Findings:
    """Lines to print, and how many of them are about something wrong."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    wrong: int = 0

    def say(self, label: str, text: str) -> None:
        self.lines.append((label, text))

    def warn(self, label: str, text: str) -> None:
        self.wrong += 1
        self.lines.append((label, text))

    def __str__(self) -> str:
        previous, rows = "", []
        for label, text in self.lines:
            rows.append(f"{label if label != previous else '':<11}{text}")
            previous = label
        return "\n".join(rows)


def examine(config: Config, *, everything: bool, sheet: Path) -> Findings:
    """All findings. Raises `PreflightError` where the sets cannot even be built."""
    found = Findings()
    sets = build_sets(config)
    named = [(name, samples) for name in NAMES if (samples := getattr(sets, name)) is not None]
    for name, samples in named:
        _classes(found, name, samples)
    for name, samples in named:
        looks = list(looks_at(sets, samples, name, everything=everything))
        _files(found, name, samples, looks)
        if name == "train":
            _levels(found, config, looks)
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
        found.say("samples", f"{name:<11}{len(samples):,}")
        return
    counts = np.bincount(labels)
    titles = classes_of(samples) or list(map(str, range(len(counts))))
    shown = [f"{title} {count:,} ({count / len(labels):.0%})" for title, count in zip(titles, counts, strict=False)]
    more = f", and {len(shown) - 6} more" if len(shown) > 6 else ""
    found.say("samples", f"{name:<11}{len(labels):,}: {', '.join(shown[:6])}{more}")
    if counts.min() * 10 < counts.max():
        found.say("samples", f"{'':<11}the rarest class has {counts.min():,}: drumbeat.data.ClassBalanced evens it out")


def _files(found: Findings, name: str, samples: Samples, looks: Sequence[Look]) -> None:
    good = [look for look in looks if not look.error]
    bad = [look for look in looks if look.error]
    of = "all" if len(looks) == len(samples) else f"{len(looks):,} of {len(samples):,}"
    if sizes := [look.size for look in good if look.mode]:
        short_sides, long_sides = [min(size) for size in sizes], [max(size) for size in sizes]
        modes = ", ".join(sorted({look.mode for look in good}))
        found.say("images", f"{name:<11}{of} read: {_range(short_sides)} x {_range(long_sides)} px, {modes}")
    else:
        found.say("read", f"{name:<11}{of}")
    for look in bad[:5]:
        found.warn("damaged", f"{name:<11}{look.error}")
    if len(bad) > 5:
        found.warn("damaged", f"{name:<11}... and {len(bad) - 5} more")


def _range(values: Sequence[int]) -> str:
    return f"{min(values):,}" if min(values) == max(values) else f"{min(values):,}-{max(values):,}"


def _levels(found: Findings, config: Config, looks: Sequence[Look]) -> None:
    """Mean and deviation of the images, against those that the config takes away."""
    sums = [look.sums for look in looks if look.sums]
    if not sums or len({len(one) for one in sums}) > 1:
        return
    totals = np.array(sums).sum(axis=0).reshape(-1, 3)
    mean = totals[:, 0] / totals[:, 2]
    deviation = np.sqrt(np.maximum(totals[:, 1] / totals[:, 2] - mean**2, 0))
    text = f"mean {_numbers(mean)}, deviation {_numbers(deviation)}"
    for module in build_batch_transforms(config):
        if isinstance(module, Normalize):
            scale, shift = (module.get_buffer(name).flatten().numpy() for name in ("scale", "shift"))
            given_deviation = 1 / (255 * scale)
            given_mean = -shift * given_deviation
            text += f"; the config takes {_numbers(given_mean)} and {_numbers(given_deviation)}"
            far = np.abs(given_mean - mean).max() > 0.15 or np.abs(np.log(given_deviation / deviation)).max() > 0.5
            if far and not config.model.get("weights"):
                text += ": other levels than the data's, which trains more slowly"
    found.say("levels", text)


def _numbers(values: Any) -> str:
    return "/".join(f"{value:.3f}" for value in np.asarray(values).tolist())


def _leaks(found: Findings, train: Samples, name: str, samples: Samples) -> None:
    """Files that are in both sets, byte by byte. Only those of the same size need to be read."""
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
        found.warn("leakage", f"{short(Path(file))}\n{'':<11}is also {short(Path(twin))}")
    if len(pairs) > 5:
        found.warn("leakage", f"... and {len(pairs) - 5} more")
    if not pairs:
        found.say("leakage", f"no file of {name} is also in train")


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
    """How long the samples are, and what of the first batches would be padding."""
    lengths = np.asarray(samples.lengths)
    middle, most = np.percentile(lengths, [50, 95])
    found.say("lengths", f"median {middle:.0f}, 95 % up to {most:.0f}, longest {lengths.max():,}")
    table = Schedule(len(lengths), config.batch_size, 1)
    stream = build_stream(config, samples, 0)
    window = config.data.bucket_batches or 50
    sorted_batches = LengthBuckets(table, stream, lengths, batches=window, rank=0, world_size=1)
    waste = [padding_waste(lengths, (stream.indices(np.asarray(positions)) for positions in islice(several, 500)))
             for several in (sorted_batches, ShardedBatchSampler(table, rank=0, world_size=1))]
    found.say("padding", f"{waste[0]:.0%} of a batch with data.bucket_batches={window}, {waste[1]:.0%} without")


def _speed(found: Findings, config: Config, sets: Sets) -> None:
    """What one loader process delivers, of which decoding; and what the model takes, on this machine."""
    phase = next(iter(config.phases.values()))
    assert phase is not None
    batch = min(phase.batch_size or config.batch_size, 16)
    fetch = training_fetcher(config, sets)
    torch.set_num_threads(1)
    first = fetch.__getitems__(range(batch))
    delivered = rate(lambda step: len(fetch.__getitems__(range(step * batch, (step + 1) * batch)).positions))
    text = f"one loader process reads {delivered:,.0f} samples/s"
    images = image_set(sets.train)
    decoding = 0.0
    if images is not None:
        decoding = rate(partial(decode, images))
        text += f"; decoding alone {decoding:,.0f}/s"
    found.say("speed", text)

    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    taken = step_rate(config, sets, first, device)
    where = "this machine's first GPU" if device.type == "cuda" else f"this machine's {cores} cores"
    found.say("speed", f"phase {next(iter(config.phases))} takes {taken:,.0f} samples/s on {where}, batches of {batch}")
    workers = taken / delivered
    found.say("advice", f"{max(1, round(workers + 0.5))} loader processes for each such device keep up"
              if workers > 0.9 else "one loader process for each such device keeps up with it")
    if decoding and config.data.cache is None and images is not None:
        without = 1 / max(1 / delivered - 1 / decoding, 1e-6)
        size = mean_size(images) * len(images)
        pays = "pays" if delivered < taken * 1.5 and without > 2 * delivered else "is not needed"
        found.say("advice", f"data.cache {pays}: {without:,.0f} samples/s from it, for {size / 1e6:,.0f} MB of disk")


def _draw(found: Findings, config: Config, sets: Sets, sheet: Path) -> None:
    """A sheet of what the model will see."""
    batch = training_fetcher(config, sets).__getitems__(range(min(24, len(sets.train))))
    if draw_sheet(config, sets, batch, sheet):
        found.say("sheet", short(sheet))


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
    print(f"verdict    {'nothing wrong was found' if not found.wrong else 'see what is damaged or leaks above'}")
    return int(found.wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
