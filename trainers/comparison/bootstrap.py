"""The paired bootstrap: how sure it is that one model is better than another on samples like these.

All models are evaluated on the same resamples, so what makes a sample hard for all of them cancels in the difference
(Koehn 2004, "Statistical significance tests for machine translation evaluation"). Samples of one group, such as the
images of a patient, are no independent observations: whole groups are drawn (Davison & Hinkley 1997, section 3.8). An
interval is that of percentiles (Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13).

The result depends on the samples and the seed alone: not on the order of samples, of models or of a set's files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drumbeat.trainers.comparison.resampled_metrics import LOWER_IS_BETTER, Computed, Draws, Floats

RESAMPLES, SEED, LEVEL = 2000, 0, 0.95
CHUNK = 2**18
"""Counts that are in memory at the same time: few, so that they stay in the processor's cache."""
MOST_UNDEFINED = 0.05
"""A metric that is undefined in more of the resamples has no interval."""


@dataclass(frozen=True)
class Difference:
    """A metric of two models, each the mean of its runs, and its difference."""

    metric: str
    first: float
    second: float
    low: float
    high: float
    """The interval of `second - first`; NaN if the metric is undefined in too many resamples."""
    better: float
    """The fraction of the resamples in which the second model is better; a tie counts half."""

    @property
    def value(self) -> float:
        return self.second - self.first

    @property
    def verdict(self) -> str:
        """first, second, or '' if the interval holds zero."""
        if not (self.low > 0 or self.high < 0):
            return ""
        return "second" if (self.low > 0) == more_is_better(self.metric) else "first"


def more_is_better(metric: str) -> bool:
    """Whether a model with a larger value is a better one."""
    return metric not in LOWER_IS_BETTER


def resamples(units: NDArray[np.int64], number: int, seed: int) -> Iterator[Draws]:
    """The counts [r, n] of n samples in `number` resamples, a few at a time. `units` are the numbers, from 0, of what
    is drawn: those of the samples, or of their groups. int64 [n]."""
    generator, count = np.random.default_rng(seed), int(units.max()) + 1
    at_once, grouped = max(1, CHUNK // len(units)), not np.array_equal(units, np.arange(count))
    for start in range(0, number, at_once):
        drawn = np.empty((min(at_once, number - start), count), dtype=np.int32)
        for row in drawn:
            row[:] = np.bincount(generator.integers(0, count, count, dtype=np.int32), minlength=count)
        yield Draws(drawn[:, units] if grouped else drawn)


def paired_bootstrap(models: Sequence[Sequence[Computed]], units: NDArray[np.int64], *, number: int = RESAMPLES,
                     seed: int = SEED, level: float = LEVEL) -> list[list[Difference]]:
    """For each model but the first, the differences from the first of all metrics that both have. A model is the
    metrics of its runs, of which it has the mean; `units` see `resamples`."""
    once = Draws(np.ones((1, len(units)), dtype=np.int32))
    whole = [_means(runs, once) for runs in models]
    drawn = [[_means(runs, draws) for runs in models] for draws in resamples(units, number, seed)]
    found = []
    for other in range(1, len(models)):
        differences = []
        for metric in (name for name in whole[0] if name in whole[other]):
            first, second = (np.concatenate([part[model][metric] for part in drawn]) for model in (0, other))
            differences.append(_difference(metric, whole[0][metric][0], whole[other][metric][0], second - first, level))
        found.append(differences)
    return found


def _means(runs: Sequence[Computed], draws: Draws) -> dict[str, Floats]:
    """The mean of each metric over the runs."""
    values = [run(draws) for run in runs]
    return {name: np.mean([one[name] for one in values], axis=0) for name in values[0]}


def _difference(metric: str, first: float, second: float, drawn: Floats, level: float) -> Difference:
    known = drawn[~np.isnan(drawn)]
    low = high = better = float("nan")
    if len(known) >= (1 - MOST_UNDEFINED) * len(drawn):
        low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]).tolist()
        sign = 1 if more_is_better(metric) else -1
        better = float(((sign * known > 0).mean() + (sign * known >= 0).mean()) / 2)
    return Difference(metric, float(first), float(second), low, high, better)
