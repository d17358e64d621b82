"""The runs of a comparison: what each is, and which of them repeat one experiment with other seeds."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from drumbeat.configs.layers import leaves
from drumbeat.configs.load import plain, read
from drumbeat.configs.run.changes import rule_of
from drumbeat.configs.run.code_files import content, files_of
from drumbeat.configs.run.code_records import newest_code
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.run_metrics import run_metrics
from drumbeat.configs.run.versions import LABELS
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config
from drumbeat.configs.secrets import hidden
from drumbeat.configs.yaml_text import inline

SEED = "seed"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Compared:
    """A run of a comparison."""

    run: RunDir
    view: View
    config: Config

    @classmethod
    def read(cls, run: RunDir) -> Compared:
        """Raises a `UserError` if a file of the run is damaged."""
        return cls(run, View.read(run), read(run.config))

    @cached_property
    def values(self) -> dict[str, str]:
        """The config's values as YAML by dotted key, without its name; stars in place of secrets."""
        return {key: inline(value) for key, value in leaves(hidden(plain(self.config))) if key != "name"}

    @cached_property
    def metrics(self) -> dict[str, float]:
        return run_metrics(self.view)

    @property
    def versions(self) -> dict[str, str]:
        """What the run was computed with, by label."""
        versions: Any = self.view.versions.versions if self.view.versions else self.view.plan.versions
        if versions is None:
            return {}
        found = {label: getattr(versions, name) or "" for name, label in LABELS.items()}
        return found | {"device": versions.device, "precision": versions.precision,
                        "ranks": str(self.view.plan.topology.world_size)}

    @cached_property
    def experiment(self) -> tuple[tuple[tuple[str, str], ...], str]:
        """What runs of one group have in common: the values that the result depends on, but the seed; and the modules
        of the code."""
        return (tuple((key, value) for key, value in sorted(self.values.items())
                      if key != SEED and rule_of(key).effect != "none"), self._modules())

    def _modules(self) -> str:
        code, state = newest_code(self.run.path), hashlib.sha256()
        for name, file in sorted(files_of(code).items()) if code else ():
            if file.suffix == ".py":
                state.update(f"{name}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
                state.update(content(file))
        return state.hexdigest()


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed only, and what they have in common."""

    label: str
    runs: Sequence[Compared]

    @property
    def name(self) -> str:
        """The names of its experiments."""
        return ", ".join(dict.fromkeys(one.run.path.parent.name for one in self.runs))

    def value(self, key: str) -> str:
        """The value of a dotted key in its runs; '' if it is not set."""
        return ", ".join(dict.fromkeys(one.values.get(key, "") for one in self.runs))

    def version(self, label: str) -> str:
        return ", ".join(dict.fromkeys(one.versions.get(label, "") for one in self.runs))

    def metric(self, name: str) -> tuple[float, float]:
        """The mean of a metric over its runs, and its standard deviation (that of a sample, with n - 1; NaN for one
        run). NaN if a run does not have it."""
        values = [one.metrics.get(name, math.nan) for one in self.runs]
        if not all(map(math.isfinite, values)):
            return math.nan, math.nan
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def grouped(runs: Sequence[RunDir]) -> list[Group]:
    """The groups, in the order of their first runs; the runs of a group by seed and id, whatever their order. Raises a
    `UserError`."""
    found: dict[Any, list[Compared]] = {}
    for one in map(Compared.read, runs):
        found.setdefault(one.experiment, []).append(one)
    return [Group(LETTERS[number] if number < len(LETTERS) else str(number + 1),
                  sorted(some, key=lambda one: (one.config.seed, one.run.id))) for number, some in
            enumerate(found.values())]


def differing_values(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """The dotted keys of the config, but the seed, whose values differ between the groups, with the value of each."""
    keys = dict.fromkeys(key for group in groups for one in group.runs for key in one.values if key != SEED)
    rows = [(key, [group.value(key) for group in groups]) for key in keys]
    return [(key, values) for key, values in rows if len({*values}) > 1]


def differing_versions(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """The same of the versions, the device, the precision and the number of ranks."""
    labels = dict.fromkeys(label for group in groups for one in group.runs for label in one.versions)
    rows = [(label, [group.version(label) for group in groups]) for label in labels]
    return [(label, values) for label, values in rows if len({*values}) > 1]
