"""How much each key of a sweep matters for the metric, where optuna is installed: the extra `sweeps`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

LEAST = 8
"""With fewer trials nothing is said."""


def importance(values: Mapping[str, Sequence[str]], metrics: Sequence[float], mode: str) -> dict[str, float]:
    """The importance of each key, as a share of all: PED-ANOVA (S. Watanabe et al., IJCAI 2023), as optuna computes it.
    `values` are those of each trial, by key. Empty without optuna, or with few trials."""
    try:
        import optuna
    except ImportError:
        return {}
    if len(metrics) < LEAST or len(values) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = {key: _column(texts) for key, texts in values.items()}
    spaces = {key: space for key, (space, _) in columns.items()}
    study = optuna.create_study(direction="minimize" if mode == "min" else "maximize")
    for number, metric in enumerate(metrics):
        params = {key: column[number] for key, (_, column) in columns.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=metric))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the evaluator is experimental
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    total = sum(found.values())
    return {key: value / total for key, value in found.items()} if total else {}


def _column(texts: Sequence[str]) -> tuple[Any, list[Any]]:
    """The space of a key, and the value of each trial in it: numbers, or else texts."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    try:
        numbers = list(map(float, texts))
    except ValueError:
        return CategoricalDistribution(sorted(set(texts))), list(texts)
    low, high = min(numbers), max(numbers)
    return FloatDistribution(low, high, log=low > 0 and high / low >= 10), numbers
