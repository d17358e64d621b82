"""The steps of a phase, by counting: which positions each one reads, where epochs end, and where the phase does."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from drumbeat.data.schedule import Schedule


def test_the_schedule_by_counting() -> None:
    """Walk the stream one position at a time and record each boundary."""
    for n in (1, 2, 7, 12):
        for batch_size in (1, 2, 5, 12, 30):
            for epochs in (Fraction(1, 2), Fraction(1), Fraction(7, 3), Fraction(3), Fraction(31, 10)):
                last = math.ceil(n * epochs)
                marks = {m * n for m in range(1, math.floor(epochs) + 1)} | {last}
                table = Schedule(n, batch_size, epochs)
                step = end = 0
                while end < last:
                    positions = range(end, end + batch_size)
                    end += batch_size
                    passed = [m for m in marks if positions.start < m <= end]
                    assert table.positions(step) == positions
                    assert (table.next_mark(step) == step + 1) == bool(passed), (table, step)
                    assert table.epochs_after(step + 1) == sum(m % n == 0 and m <= end for m in marks)
                    step += 1
                assert (table.samples, table.steps, table.overshoot) == (last, step, end - last)
                for epoch in range(1, math.ceil(epochs) + 2):
                    steps = table.steps_until(epoch)
                    assert steps * batch_size >= min(epoch * n, last) > (steps - 1) * batch_size


@pytest.mark.parametrize(
    ("n", "epochs", "samples"),
    [
        (10, 0.1 * 3, 3),
        (10, 0.3, 3),
        (30, 1 / 3, 10),
        (10**9, 0.1 + 0.2, 300_000_000),
        (10, sum([0.1] * 10), 10),
        (10, 2.05, 21),
        (5, 0.5, 3),
        (10, 1e-12, 1),
        (10**12, 100.1, 1001 * 10**11),
        (3, Fraction(1, 3), 1),
    ],
)
def test_length_has_no_rounding_surprises(n: int, epochs: float | Fraction, samples: int) -> None:
    assert Schedule(n, 1, epochs).samples == samples


@pytest.mark.parametrize("earlier", [(), ((3, 4),), ((3, 4), (2, 7)), ((1, 30),), ((7, 4),)])
def test_another_batch_size_continues_where_the_steps_before_have_ended(earlier: tuple[tuple[int, int], ...]) -> None:
    """Each position is read once, and the marks are those of one batch size."""
    table = Schedule(10, 3, 2.8, earlier)
    sizes = [size for steps, size in earlier for _ in range(steps)]
    assert table.changed_at == len(sizes)
    positions = [list(table.positions(step)) for step in range(table.steps)]
    assert [one for read in positions for one in read] == [*range(28 + table.overshoot)]
    assert [len(one) for one in positions] == sizes + [3] * (table.steps - len(sizes))
    ends = [table.start(step + 1) for step in range(table.steps)]
    assert [table.next_mark(step) == step + 1 for step in range(table.steps)] == [
        any(end - len(read) < mark <= end for mark in (10, 20, 28))
        for end, read in zip(ends, positions, strict=True)]
    assert [table.steps_until(epochs) for epochs in (1, 2, 3)] == [
        1 + next(step for step, end in enumerate(ends) if end >= mark) for mark in (10, 20, 28)]


@pytest.mark.parametrize("every", [0.25, 1 / 3, 1, 2, 1.5])
def test_marks_are_at_the_multiples_of_a_number_of_epochs_and_at_the_end(every: float) -> None:
    table, marks, step = Schedule(10, 3, 4.5), [], 0
    while step < table.steps:
        marks.append(step := table.next_mark(step, every))
    exact = Fraction(every).limit_denominator(100) * 10
    wanted = {1 + next(step for step in range(table.steps) if table.start(step + 1) >= number * exact)
              for number in range(1, 1 + math.floor(45 / exact))}
    assert marks == sorted(wanted | {table.steps})


@pytest.mark.parametrize("earlier", [(), ((2, 4),)])
def test_a_phase_that_ends_early_keeps_what_it_has_read(earlier: tuple[tuple[int, int], ...]) -> None:
    """Its overshoot is that over the epoch boundary which its last step reaches."""
    whole = Schedule(10, 3, 4.5, earlier)
    assert whole.cut(whole.steps) == whole.cut(99) == whole
    for steps in range(max(1, whole.changed_at), whole.steps):
        table = whole.cut(steps)
        assert table.steps == steps
        assert [table.positions(step) for step in range(steps)] == [whole.positions(step) for step in range(steps)]
        assert [table.next_mark(step) for step in range(steps)] == [
            min(steps, whole.next_mark(step)) for step in range(steps)]
        end = table.start(steps)
        assert table.overshoot == (end % 10 if end // 10 > table.start(steps - 1) // 10 else 0)


def test_the_schedule_of_a_billion_samples_takes_no_time() -> None:
    table = Schedule(10**9, 1024, 90)
    assert table.steps == 87_890_625
    assert table.overshoot == 0
    assert table.steps_until(1) == 976_563
    assert table.next_mark(976_562) == table.next_mark(0) == 976_563
    assert table.next_mark(0, 0.25) == 244_141
    assert table.positions(976_562) == range(999_999_488, 1_000_000_512)


def test_step_outside_the_phase_is_rejected() -> None:
    for step in (-1, 3):
        with pytest.raises(ValueError, match=f"step {step} is not in 0 to 2"):
            Schedule(10, 4, 1).positions(step)


@pytest.mark.parametrize("epochs", [0, -1, math.inf, math.nan])
def test_invalid_lengths_are_rejected(epochs: float) -> None:
    with pytest.raises(ValueError, match="epochs must be a positive number"):
        Schedule(10, 4, epochs)


@pytest.mark.parametrize(("n", "batch_size"), [(0, 4), (10, 0)])
def test_empty_sets_and_batches_are_rejected(n: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"must be at least 1, not {n} and {batch_size}"):
        Schedule(n, batch_size, 1)
