"""The intervals of the paired bootstrap hold the true difference as often as they say, and depend on nothing else."""

from __future__ import annotations

import numpy as np

from drumbeat.trainers.comparison.bootstrap import Difference, paired_bootstrap, resamples
from drumbeat.trainers.comparison.resampled_metrics import Computed, Draws

REPETITIONS = 200


def correct(values: np.ndarray) -> Computed:
    """A model that is right about these samples, bool [n]."""
    numbers = values.astype(np.float64)
    return lambda draws: {"accuracy": draws.double @ numbers / draws.total}


def coverage(*, groups: int, size: int, clustered: bool) -> float:
    """How often the interval holds the true difference of two accuracies, 0.05, in sets of so many groups of so many
    samples, of which a group has a difficulty of its own for each model."""
    hits = 0
    for repetition in range(REPETITIONS):
        generator = np.random.default_rng(repetition)
        shared = generator.normal(size=(groups, 1))
        models = []
        for accuracy in (0.75, 0.80):
            hard = shared + generator.normal(size=(groups, 1)) + generator.normal(size=(groups, size))
            limit = QUANTILES[accuracy] * np.sqrt(3)
            models.append([correct((hard < limit).ravel())])
        units = np.repeat(np.arange(groups), size) if clustered else np.arange(groups * size)
        ((found,),) = paired_bootstrap(models, units, number=400, seed=repetition)
        hits += found.low <= 0.05 <= found.high
    return hits / REPETITIONS


QUANTILES = {0.75: 0.6744897501960817, 0.80: 0.8416212335729143}
"""Of the standard normal distribution."""


def test_independent_samples_are_covered() -> None:
    assert 0.90 <= coverage(groups=300, size=1, clustered=False) <= 0.99


def test_groups_are_covered_if_whole_groups_are_drawn() -> None:
    """As single samples they would seem to tell more than they do."""
    assert 0.90 <= coverage(groups=60, size=10, clustered=True) <= 0.99
    assert coverage(groups=60, size=10, clustered=False) < 0.85


def models(n: int = 50) -> list[list[Computed]]:
    generator = np.random.default_rng(5)
    return [[correct(generator.random(n) < accuracy)] for accuracy in (0.5, 0.9, 0.7)]


def test_the_order_of_two_models_turns_the_sign() -> None:
    a, b, _ = models()
    ((one,),), ((other,),) = (paired_bootstrap(pair, np.arange(50)) for pair in ([a, b], [b, a]))
    assert (one.verdict, other.verdict) == ("second", "first")
    assert np.allclose([one.value, one.low, one.high, one.better],
                       [-other.value, -other.high, -other.low, 1 - other.better])


def test_a_third_model_changes_nothing() -> None:
    a, b, c = models()
    assert paired_bootstrap([a, b, c], np.arange(50))[0] == paired_bootstrap([a, b], np.arange(50))[0]


def test_a_model_is_the_mean_of_its_runs() -> None:
    a, b, c = models()
    ((found,),) = paired_bootstrap([a, [*b, *c]], np.arange(50))
    halves = [paired_bootstrap([a, one], np.arange(50))[0][0] for one in (b, c)]
    assert np.isclose(found.value, np.mean([one.value for one in halves]))
    assert found.high - found.low < max(one.high - one.low for one in halves)


def test_less_of_a_loss_is_better() -> None:
    assert [Difference(metric, 1.0, 0.5, low, high, 0.5).verdict for metric, low, high in (
        ("loss", -0.6, -0.4), ("loss", 0.4, 0.6), ("accuracy", -0.6, -0.4), ("rmse", -0.1, 0.1))] == [
            "second", "first", "first", ""]


def test_a_metric_that_is_often_undefined_has_no_interval() -> None:
    def rare(draws: Draws) -> dict[str, np.ndarray]:
        return {"auroc": np.where(draws.counts[:, 0] > 0, 0.5, np.nan)}

    ((found,),) = paired_bootstrap([[rare], [rare]], np.arange(50))
    assert found.first == 0.5 and np.isnan([found.low, found.high, found.better]).all() and found.verdict == ""


def test_whole_groups_are_drawn() -> None:
    units = np.array([0, 0, 1, 2, 2, 2])
    drawn = np.concatenate([draws.counts for draws in resamples(units, 20, seed=0)])
    assert drawn.shape == (20, 6) and (drawn[:, units == 2] == drawn[:, 3:4]).all()
    assert (drawn[:, [0, 2, 3]].sum(1) == 3).all()


def test_resamples_are_the_same_however_many_are_in_memory() -> None:
    whole = np.concatenate([draws.counts for draws in resamples(np.arange(2**16), 9, seed=1)])
    few = [next(iter(resamples(np.arange(2**16), number, seed=1))).counts for number in (1, 3)]
    assert (whole[:1] == few[0]).all() and (whole[:3] == few[1]).all()


