"""A comparison as text, of at most 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from drumbeat.configs.errors import WIDTH, hang
from drumbeat.configs.text_table import aligned
from drumbeat.trainers.comparison.bootstrap import LEVEL, RESAMPLES, Difference
from drumbeat.trainers.comparison.comparison import Comparison
from drumbeat.trainers.comparison.groups import Group
from drumbeat.trainers.comparison.paired import evaluate_commands

LABEL = 10
FILES = 6
"""The number of files that a line names."""


def comparison_text(found: Comparison) -> str:
    """The groups, what differs between them, their metrics, and whether one is better than the first."""
    blocks = ["\n".join(hang(f"{group.label:<3}", runs_text(group)) for group in found.groups),
              "\n".join(_differences("config", found, found.values)),
              "\n".join(_code(found)), "\n".join(_differences("versions", found, found.versions)),
              "\n".join(_metrics(found)), "\n".join(_bootstrap(found))]
    return "\n\n".join(filter(None, blocks))


def runs_text(group: Group) -> str:
    """The runs of a group: their names and ids, and the seeds of several."""
    ids = ", ".join(f"{one.run.path.parent.name}/{one.run.id}" for one in group.runs)
    seeds = ", ".join(str(one.config.seed) for one in group.runs)
    return ids if len(group.runs) == 1 else f"{len(group.runs)} runs, seeds {seeds}: {ids}"


def number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def mean_text(group: Group, metric: str) -> str:
    """The metric of a group, and over several runs its standard deviation."""
    mean, spread = group.metric(metric)
    return number(mean) + (f" ± {spread:.4f}" if math.isfinite(spread) else "")


def code_text(first: str, second: str, files: Sequence[str]) -> str:
    """How the code of two groups differs, in a sentence."""
    if "no copy" in (first, second):
        return "not known: a run has no copy of its code"
    if not files:
        return "the same"
    named = ", ".join(files[:FILES]) + (f" and {len(files) - FILES:,} more" if len(files) > FILES else "")
    return f"{len(files)} file{'s' * (len(files) != 1)} differ{'s' * (len(files) == 1)}: {named}"


def verdict_text(one: Difference) -> str:
    """Whether the second group is better, and in how many of the resamples."""
    if math.isnan(one.better):
        return "undefined"
    answer = {"second": "yes", "first": "no", "": "undecided"}[one.verdict]
    return f"{answer}, {100 * one.better:.1f}%"


def signed(value: float) -> str:
    rounded = round(value, 4) + 0.0
    return f"{rounded:+.4f}" if abs(value) < 1000 else f"{value:+,.1f}"


def bootstrap_title(found: Comparison) -> str:
    """What the differences are computed from."""
    assert found.paired is not None
    return f"{found.paired.text}; {LEVEL:.0%} intervals of a paired bootstrap, {RESAMPLES:,} resamples"


def bootstrap_rows(found: Comparison, number_of: int) -> list[tuple[str, ...]]:
    """The table of a group's differences from the first, with its heading."""
    first, second = found.groups[0].label, found.groups[number_of].label
    return [("metric", first, second, f"{second} - {first}", "interval", f"{second} better?"), *(
        (one.metric.replace("_", " "), number(one.first), number(one.second), signed(one.value),
         "-" if math.isnan(one.low) else f"{signed(one.low)} to {signed(one.high)}", verdict_text(one))
        for one in found.differences[number_of - 1])]


def missing_text(found: Comparison) -> str:
    """What to type so that predictions are compared."""
    runs = [one.run for group in found.groups for one in group.runs]
    data = runs and found.groups[0].runs[0].config.data
    split = "test" if data and data.test else "validation"
    return "\n".join(evaluate_commands(runs, split, None))


def _differences(label: str, found: Comparison, rows: Sequence[tuple[str, list[str]]]) -> Iterator[str]:
    """A table of what differs; where it is too wide, a line for each value."""
    if len(found.groups) == 1:
        return
    if not rows:
        yield f"{label:<{LABEL}}the same"
        return
    names = [group.label for group in found.groups]
    table = aligned([(label, *names), *((key, *(value or "-" for value in values)) for key, values in rows)])
    if max(map(len, table)) <= WIDTH:
        yield from table
        return
    yield label
    for key, values in rows:
        yield key
        yield from (hang(f"  {name:<3}", value or "-") for name, value in zip(names, values, strict=True))


def _code(found: Comparison) -> Iterator[str]:
    for group, code in zip(found.groups[1:], found.code, strict=True):
        label = "code" if len(found.groups) == 2 else f"code {group.label}"
        yield hang(f"{label:<{LABEL}}", code_text(code.first, code.second, code.files))


def _metrics(found: Comparison) -> Iterator[str]:
    if found.metrics:
        names = [group.label for group in found.groups]
        rows = [(name.replace("_", " "), *(mean_text(group, name) for group in found.groups))
                for name in found.metrics]
        yield from aligned([("best checkpoint", *names), *rows], range(1, len(names) + 1))


def _bootstrap(found: Comparison) -> Iterator[str]:
    if len(found.groups) == 1:
        return
    if found.paired is None:
        yield hang("note      ", "to compare predictions on the same samples, evaluate each run on one set:")
        yield missing_text(found)
        return
    yield hang("", bootstrap_title(found))
    for place in range(1, len(found.groups)):
        yield from aligned(bootstrap_rows(found, place), range(1, 4))
