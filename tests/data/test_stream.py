"""Whole runs compared with the formula: the samples of a step depend only on the phase and the step."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from drumbeat.data.order import Integers, Permutation, key
from drumbeat.data.sampling import ClassBalanced, SampleStream, Weighted
from drumbeat.data.schedule import Schedule
from tests.data.simulation import Attempt, Step, simulate

SEED = 17
PHASES = [Schedule(37, 8, 2), Schedule(37, 5, 1.5), Schedule(1100, 64, 0.25), Schedule(6, 16, 3)]
WIDEST = min(table.batch_size for table in PHASES)


def closed_form(phases: list[Schedule]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The (position, index) pairs of each (phase, step), taken from whole epochs in a row."""
    steps = {}
    for phase, table in enumerate(phases):
        order: list[int] = []
        while len(order) < table.steps * table.batch_size:
            epoch = Permutation(table.n, key(SEED, "order", phase, len(order) // table.n))
            order += epoch(np.arange(table.n)).tolist()
        for step in range(table.steps):
            begin = step * table.batch_size
            steps[phase, step] = list(enumerate(order[begin : begin + table.batch_size], start=begin))
    return steps


def by_step(run: list[Step]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The samples of each step. Asserts that a repeated step reads the same samples."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for step in run:
        assert found.setdefault((step.phase, step.step), step.samples()) == step.samples()
    return found


@pytest.mark.parametrize("world_size", range(1, WIDEST + 1))
def test_the_world_size_does_not_change_a_step(world_size: int) -> None:
    for largest in (1, 3, 100):
        run = list(simulate(PHASES, SEED, [Attempt(world_size, 0)], largest))
        assert by_step(run) == closed_form(PHASES)
        assert len(run) == sum(table.steps for table in PHASES)
        assert all(len(part) <= largest for step in run for rank in step.reads for part in rank)


@pytest.mark.parametrize("case", range(40))
def test_stops_crashes_and_changes_of_world_size_do_not_change_a_step(case: int) -> None:
    dice = random.Random(case)
    phases = [
        Schedule(dice.choice([1, 5, 30, 64, 1200]), dice.randint(4, 40), dice.choice([0.5, 1, 2, 0.1 * 3, 2.7]))
        for _ in range(dice.randint(1, 4))
    ]
    widest = min(table.batch_size for table in phases)
    attempts = []
    for _ in range(dice.randint(1, 12)):
        steps = dice.randint(0, 12)
        attempts.append(Attempt(dice.randint(1, widest), steps, lost=dice.choice([0, dice.randint(0, steps)])))
    run = list(simulate(phases, SEED, attempts, largest=dice.randint(1, 10)))
    assert by_step(run) == closed_form(phases)
    assert (run[-1].phase, run[-1].step) == (len(phases) - 1, phases[-1].steps - 1)


def test_the_cases_above_repeat_steps_and_change_the_world_size() -> None:
    """Otherwise they would test nothing."""
    run = list(simulate(PHASES, SEED, [Attempt(1, 9, lost=4), Attempt(5, 3), Attempt(2, 0)], 100))
    assert max(Counter((step.phase, step.step) for step in run).values()) == 2
    assert {len(step.reads) for step in run} == {1, 2, 5}


def test_epochs_and_overshoot() -> None:
    """Each epoch reads each sample once, the last epoch of the phase at most once, and no position is skipped."""
    for phase, table in enumerate(PHASES):
        run = [step for step in simulate(PHASES, SEED, [Attempt(3, 0)], 4) if step.phase == phase]
        pairs = [pair for step in run for pair in step.samples()]
        assert [position for position, _ in pairs] == list(range(table.samples + table.overshoot))
        assert 0 <= table.overshoot < table.batch_size
        for epoch in range(pairs[-1][0] // table.n + 1):
            seen = Counter(index for position, index in pairs if position // table.n == epoch)
            whole = (epoch + 1) * table.n <= len(pairs)
            assert set(seen.values()) == {1}
            assert len(seen) == table.n if whole else len(seen) < table.n


def test_shards_are_of_equal_size() -> None:
    for step in simulate(PHASES, SEED, [Attempt(3, 0)], 2):
        sizes = [sum(map(len, rank)) for rank in step.reads]
        assert max(sizes) - min(sizes) <= 1


def test_batch_smaller_than_the_world_size_is_rejected() -> None:
    with pytest.raises(ValueError, match="batch_size 5 is smaller than the world size 6"):
        list(simulate(PHASES, SEED, [Attempt(WIDEST + 1, 0)], 4))


@dataclass
class Labelled:
    """The part of a dataset that a stream uses: three classes of very unequal sizes."""

    n: int

    def __len__(self) -> int:
        return self.n

    @property
    def labels(self) -> Integers:
        return np.minimum(np.arange(self.n) // 2, 2)


@pytest.mark.parametrize("kind", [partial(Weighted, class_weights={"0": 4, "1": 1, "2": 0.5}), ClassBalanced])
def test_other_streams_do_not_change_either(kind: Callable[[Labelled, int, int], SampleStream]) -> None:
    """Weighted and class-balanced streams depend on the position alone, too."""

    def streams(n: int, seed: int, phase: int) -> SampleStream:
        return kind(Labelled(n), seed, phase)

    alone = list(simulate(PHASES, SEED, [Attempt(1, 0)], 100, streams))
    attempts = [Attempt(1, 9, lost=4), Attempt(5, 3), Attempt(3, 11, lost=11), Attempt(2, 0)]
    assert by_step(list(simulate(PHASES, SEED, attempts, 3, streams))) == by_step(alone)
    assert by_step(alone) != closed_form(PHASES)
