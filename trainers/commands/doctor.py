"""Checks the data before a long run: classes, files, leaks between sets, copies, texts, pixel statistics, speed.

    python -m drumbeat.trainers.commands.doctor [--all] [--group PATTERN] [--sheet FILE] [--json] < config

is what `drumbeat doctor CONFIG` runs. Exit code 1 if there are problems.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.layers import Layer, short
from drumbeat.configs.load import build_config
from drumbeat.configs.preconditions import with_hint
from drumbeat.configs.schema import Config
from drumbeat.configs.terminal import print_text_only
from drumbeat.trainers.build import Sets, build_sets
from drumbeat.trainers.contact_sheet import draw_sheet, training_fetcher
from drumbeat.trainers.doctor.findings import Finding, Findings
from drumbeat.trainers.doctor.images import image_facts, left_out, pixel_facts, sample_findings
from drumbeat.trainers.doctor.labels import class_counts, label_findings
from drumbeat.trainers.doctor.leaks import copies_in_train, leak_findings
from drumbeat.trainers.doctor.masks import mask_findings
from drumbeat.trainers.doctor.sample_checks import check_samples
from drumbeat.trainers.doctor.speed import padding_fact, speed_facts
from drumbeat.trainers.doctor.subject import Subject
from drumbeat.trainers.doctor.texts import encoding_findings, length_facts, text_findings
from drumbeat.trainers.set_notes import notes_of

NAMES = ("train", "validation", "test")


def examine(config: Config, *, everything: bool, group: str | None, sheet: Path) -> Findings:
    """All findings. Raises `PreflightError` if the sets cannot be built."""
    found, sets = Findings(), build_sets(config)
    subjects = [Subject(name, samples, list(check_samples(sets, samples, name, everything=everything)))
                for name in NAMES if (samples := getattr(sets, name)) is not None]
    train = subjects[0]
    for one in subjects:
        found.fact("samples", class_counts(one))
        found.add(label_findings(one, train))
    for note in notes_of(sets):
        found.fact("note", note)
    for one in subjects:
        found.fact(*image_facts(one))
        found.add(sample_findings(one, config.data))
        found.add(mask_findings(one))
        found.add(text_findings(one, everything=everything))
    for one in subjects[1:]:
        found.add(leak_findings(train, one, group))
    found.add(copies_in_train(train))
    found.add(left_out(subjects))
    found.add(encoding_findings(subjects))
    found.add(_not_read(subjects))
    pixels, findings = pixel_facts(config, train.checks)
    found.add(findings)
    if pixels:
        found.fact("pixels", pixels)
    if (lengths := getattr(sets.train, "lengths", None)) is not None:
        found.fact("lengths", length_facts(np.asarray(lengths)))
        found.fact("padding", padding_fact(config, sets.train))
    with contextlib.redirect_stderr(io.StringIO()):  # it says of each unreadable sample that it is skipped
        for label, text in speed_facts(config, sets):
            found.fact(label, text)
        _draw(found, config, sets, sheet)
    return found


def _not_read(subjects: list[Subject]) -> list[Finding]:
    """What the check of a part of the samples cannot see."""
    parts = [one for one in subjects if len(one.checks) < len(one.samples)]
    read = ", ".join(f"{len(one.checks):,} of {len(one.samples):,} of {one.name}" for one in parts)
    return [Finding("note", "not_read", f"not all samples were read: {read}",
                    "Damaged samples and copies are found only among them. To read all: --all")] if parts else []


def _draw(found: Findings, config: Config, sets: Sets, sheet: Path) -> None:
    """Draws a sheet of training samples as the model sees them."""
    batch = training_fetcher(config, sets).__getitems__(range(min(24, len(sets.train))))
    if draw_sheet(config, sets, batch, sheet):
        found.fact("sheet", short(sheet))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--group")
    parser.add_argument("--sheet", type=Path, default=Path("doctor.png"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    config = build_config([Layer(values=json.load(sys.stdin), origin="config")])
    try:
        found = examine(config, everything=args.all, group=args.group, sheet=args.sheet.absolute())
    except PreflightError as error:
        print(PreflightError(*with_hint(error.faults, config.data.download_hint)), file=sys.stderr)
        return error.exit_code
    print(json.dumps(found.as_json(), indent=2) if args.json else f"{found}\n\nverdict    {found.verdict}")
    return int(bool(found.of("problem")))


if __name__ == "__main__":
    print_text_only()
    sys.exit(main())
