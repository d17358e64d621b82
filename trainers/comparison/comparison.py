"""All that `drumbeat compare` finds out about some runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from drumbeat.configs.run.folder import RunDir
from drumbeat.data.loader import one_thread
from drumbeat.trainers.comparison.bootstrap import LEVEL, RESAMPLES, SEED, Difference, more_is_better, paired_bootstrap
from drumbeat.trainers.comparison.code import CodeDifference, code_difference
from drumbeat.trainers.comparison.groups import Group, differing_values, differing_versions, grouped
from drumbeat.trainers.comparison.paired import Paired, choose_split, paired
from drumbeat.trainers.comparison.resampled_metrics import resampled_metrics


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Groups of runs, and what differs between them."""

    groups: Sequence[Group]
    values: Sequence[tuple[str, list[str]]]
    """The dotted keys of the config that differ, with the value of each group."""
    code: Sequence[CodeDifference]
    """Of each group but the first, from the first."""
    versions: Sequence[tuple[str, list[str]]]
    paired: Paired | None
    """The predictions on the same samples; None if the runs have not been evaluated on one set."""
    differences: Sequence[Sequence[Difference]]
    """Of each group but the first, from the first; empty without `paired`."""

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics, the monitored one first."""
        names = dict.fromkeys(name for group in self.groups for one in group.runs for name in one.metrics)
        monitor = self.groups[0].runs[0].config.evaluation.monitor
        return sorted(names, key=lambda name: (name.split("/")[0] != "validation", name.split("/")[1] != monitor))

    def as_json(self) -> dict[str, Any]:
        """Strict JSON; null in place of NaN."""
        return {
            "groups": [{"label": group.label, "name": group.name, "runs": [
                {"id": one.run.id, "name": one.run.path.parent.name, "folder": str(one.run.path),
                 "seed": one.config.seed, "metrics": {name: _strict(value) for name, value in one.metrics.items()}}
                for one in group.runs], "metrics": {name: {
                    key: _strict(value) for key, value in zip(("mean", "std"), group.metric(name), strict=True)}
                    for name in self.metrics}} for group in self.groups],
            "config": {key: dict(self._labelled(values)) for key, values in self.values},
            "versions": {label: dict(self._labelled(values)) for label, values in self.versions},
            "code": [{"of": group.label, "first": one.first, "second": one.second, "files": list(one.files)}
                     for group, one in zip(self.groups[1:], self.code, strict=True)],
            "predictions": None if self.paired is None else {
                "split": self.paired.split, "samples": len(self.paired.units),
                "groups": int(self.paired.units.max()) + 1 if self.paired.grouped else None, "resamples": RESAMPLES,
                "seed": SEED, "level": LEVEL, "differences": [
                    {"of": group.label, "metric": one.metric, "more_is_better": more_is_better(one.metric),
                     "first": _strict(one.first), "second": _strict(one.second), "difference": _strict(one.value),
                     "low": _strict(one.low), "high": _strict(one.high), "second_is_better": _strict(one.better)}
                    for group, some in zip(self.groups[1:], self.differences, strict=True) for one in some]}}

    def _labelled(self, values: Sequence[str]) -> Iterator[tuple[str, str]]:
        return zip((group.label for group in self.groups), values, strict=True)


def _strict(value: float) -> float | None:
    return value if math.isfinite(value) else None


def compare(runs: Sequence[RunDir], *, split: str | None = None, which: str | None = None,
            pattern: str | None = None) -> Comparison:
    """Compares runs, whose first group is what the others are compared with. For `split`, `which` and `pattern` see
    `paired`. Raises a `UserError`."""
    groups = grouped(runs)
    chosen = choose_split(runs, split, which)
    found = paired(runs, chosen, which, pattern) if chosen else None
    with one_thread():
        differences = paired_bootstrap([[resampled_metrics(found.samples[one.run]) for one in group.runs]
                                        for group in groups], found.units) if found and len(groups) > 1 else []
    return Comparison(groups=groups, values=differing_values(groups), versions=differing_versions(groups),
                      code=[code_difference(groups[0].runs[0].run, group.runs[0].run) for group in groups[1:]],
                      paired=found, differences=differences)
