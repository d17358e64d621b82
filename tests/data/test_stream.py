"""Whole runs against the closed form: the samples of a step depend on the phase and the step, and on nothing else."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from data.order import Permutation, Stream, Timetable, key, keys, share
from tests.data.simulation import (
    AliasTable,
    Attempt,
    Step,
    class_balanced,
    mixup_partners,
    simulate,
    window_batch,
)

SEED = 17
PHASES = [Timetable(37, 8, 2), Timetable(37, 5, 1.5), Timetable(1100, 64, 0.25), Timetable(6, 16, 3)]
WIDEST = min(table.batch_size for table in PHASES)


def closed_form(phases: list[Timetable]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The (position, index) pairs of each (phase, step), read off whole epochs laid end to end."""
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
    """The samples of each step, after seeing that a step taken twice read the same twice."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for step in run:
        assert found.setdefault((step.phase, step.step), step.samples()) == step.samples()
    return found


@pytest.mark.parametrize("world_size", range(1, WIDEST + 1))
def test_width_does_not_change_a_step(world_size: int) -> None:
    for largest in (1, 3, 100):
        run = list(simulate(PHASES, SEED, [Attempt(world_size, 0)], largest))
        assert by_step(run) == closed_form(PHASES)
        assert len(run) == sum(table.steps for table in PHASES)
        assert all(len(part) <= largest for step in run for rank in step.reads for part in rank)


@pytest.mark.parametrize("case", range(40))
def test_stops_crashes_and_changes_of_width_do_not_change_a_step(case: int) -> None:
    dice = random.Random(case)
    phases = [
        Timetable(dice.choice([1, 5, 30, 64, 1200]), dice.randint(4, 40), dice.choice([0.5, 1, 2, 0.1 * 3, 2.7]))
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


def test_the_cases_above_do_repeat_steps_and_change_width() -> None:
    """So that they cannot pass by testing nothing."""
    run = list(simulate(PHASES, SEED, [Attempt(1, 9, lost=4), Attempt(5, 3), Attempt(2, 0)], 100))
    assert max(Counter((step.phase, step.step) for step in run).values()) == 2
    assert {len(step.reads) for step in run} == {1, 2, 5}


def test_epochs_and_overshoot() -> None:
    """Each epoch reads each sample once, the epoch that the phase ends in at most once, and no position is left out."""
    for phase, table in enumerate(PHASES):
        run = [step for step in simulate(PHASES, SEED, [Attempt(3, 0)], 4) if step.phase == phase]
        pairs = [pair for step in run for pair in step.samples()]
        assert [position for position, _ in pairs] == list(range(table.samples + table.overshoot))
        assert 0 <= table.overshoot < table.batch_size
        for epoch in range(table.epoch(pairs[-1][0]) + 1):
            seen = Counter(index for position, index in pairs if table.epoch(position) == epoch)
            whole = (epoch + 1) * table.n <= len(pairs)
            assert set(seen.values()) == {1}
            assert len(seen) == table.n if whole else len(seen) < table.n


def test_ranks_share_evenly() -> None:
    for step in simulate(PHASES, SEED, [Attempt(3, 0)], 2):
        sizes = [sum(map(len, rank)) for rank in step.reads]
        assert max(sizes) - min(sizes) <= 1


def test_batch_smaller_than_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 5 is too small for 6 ranks"):
        list(simulate(PHASES, SEED, [Attempt(WIDEST + 1, 0)], 4))


# What four streams of the future ask of data/order.py.


def test_weighted_stream() -> None:
    """Draws with replacement need no permutation, only `keys`: one word a position, whose halves make two draws.

    Teaches: `keys` must be as cheap as a permutation and take whole blocks; a weighted stream has no epochs, so marks
    belong to the timetable and not to the stream; weights as integers make the table exact and alike on every machine.
    """
    weights = [1, 0, 7, 2, 90, 0, 3, 1]
    table = AliasTable.build(weights)
    assert [chance * sum(weights) for chance in table.probabilities()] == weights
    positions = np.arange(40_000)
    drawn = table.indices(SEED, 0, positions)
    expected = np.array(weights) / sum(weights) * len(positions)
    assert (np.abs(np.bincount(drawn, minlength=8) - expected) <= 5 * np.sqrt(expected)).all()
    for world_size in (1, 3, 8):
        parts = [share(len(positions), rank, world_size) for rank in range(world_size)]
        assert np.array_equal(
            np.concatenate([table.indices(SEED, 0, positions[p.start : p.stop]) for p in parts]), drawn
        )


@pytest.mark.parametrize("n", [1, 2, 13])
def test_alias_tables_are_exact(n: int) -> None:
    dice = random.Random(n)
    for _ in range(50):
        weights = [dice.choice([0, 1, dice.randint(0, 1000)]) for _ in range(n - 1)] + [dice.randint(1, 10)]
        assert [chance * sum(weights) for chance in AliasTable.build(weights).probabilities()] == weights


def test_class_balanced_stream() -> None:
    """A class's samples are a stream of their own at position p // C, with epochs of the class's length.

    Teaches: `Stream` needs no argument for this, because a key is a seed: Stream(n, key(seed, "class", c), phase).
    Blocks must be allowed to span many epochs, as small classes come round often, and tiny sets must mix as well as
    large.
    """
    members = [np.arange(0, 3), np.arange(3, 50), np.arange(50, 1250)]
    labels = np.repeat([0, 1, 2], [3, 47, 1200])
    positions = np.arange(4500)
    indices = class_balanced(members, SEED, 0, positions)
    assert np.array_equal(labels[indices], positions % 3)
    for label, samples in enumerate(members):
        mine = indices[labels[indices] == label]
        for begin in range(0, len(mine) - len(samples) + 1, len(samples)):
            assert sorted(mine[begin : begin + len(samples)].tolist()) == samples.tolist()
    every_third = [class_balanced(members, SEED, 0, positions[rank::4]) for rank in range(4)]
    assert all(np.array_equal(part, indices[rank::4]) for rank, part in enumerate(every_third))


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_length_windows(world_size: int) -> None:
    """Sorting moves positions between the steps of a window; which sample lies at a position stays as it was.

    Teaches: a sampler must deal in positions and ask for indices last, so that a sample keeps its augmentation wherever
    it is read; a window is made of steps, so the timetable must know the phase's last step; ranks may take other parts
    of a batch than `share`, a stride here. With windows a mark is passed with up to a window of samples read early or
    late: the phase, not the epoch, is what reads every position exactly once.
    """
    table, batches = Timetable(50, 8, 3.3), 4
    stream = Stream(table.n, SEED, 0)
    lengths = np.random.default_rng(0).integers(1, 500, table.n)
    assert table.steps % batches, "the last window is to be a short one"
    read = []
    for step in range(table.steps):
        parts = [window_batch(table, stream, lengths, batches, step, rank, world_size) for rank in range(world_size)]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        batch = np.sort(np.concatenate(parts))
        assert np.array_equal(batch, np.sort(window_batch(table, stream, lengths, batches, step, 0, 1)))
        first = step - step % batches
        assert batch.min() >= table.positions(first).start
        assert batch.max() < table.positions(min(first + batches, table.steps) - 1).stop
        read.append(batch)
    assert sorted(np.concatenate(read).tolist()) == list(range(table.steps * table.batch_size))

    def spread(batch: np.ndarray) -> int:
        return int(np.ptp(lengths[stream.indices(batch)]))

    plain = [np.array(table.positions(step)) for step in range(table.steps)]
    assert np.mean([spread(batch) for batch in read]) < 0.5 * np.mean([spread(batch) for batch in plain])


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_mixup_partners(world_size: int) -> None:
    """A partner is a position, so a rank can read it although it belongs to another rank's share.

    Teaches: `Permutation` is useful by itself, at the size of a batch, where it must be quick to set up; reading a
    partner by its position gives it the augmentation that it has in its own right; how far two are blended is a draw of
    `keys`. A partner outside the rank's share costs a second reading: swapping within the share would be cheaper, but
    would change with the width.
    """
    table = Timetable(50, 8, 2)
    for step in range(table.steps):
        batch = table.positions(step)
        shares = [share(table.batch_size, rank, world_size) for rank in range(world_size)]
        mine = [np.array(batch[part.start : part.stop]) for part in shares]
        partners = np.concatenate([mixup_partners(table, SEED, 0, step, part) for part in mine])
        assert np.array_equal(partners, mixup_partners(table, SEED, 0, step, np.array(batch)))
        assert sorted(partners.tolist()) == list(batch)
    blends = keys(SEED, "blend", 0, positions=np.arange(8000)).astype(np.float64) / 2.0**64
    assert abs(blends.mean() - 0.5) < 0.02
