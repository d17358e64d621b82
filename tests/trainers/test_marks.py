"""The marks of a phase: after which steps what is due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.data.schedule import Schedule
from drumbeat.trainers.marks import Mark, Marks

TEN = Schedule(10, 2, 3)
"""Three epochs of five steps."""


def steps(marks: Marks, due: Callable[[Mark], Any], before: int = 0) -> list[int]:
    """The steps of the phase after which something is due, in a phase with so many steps of the run before it."""
    found, progress = [], Progress(step=before, phase_step=0)
    while progress.phase_step < marks.schedule.steps:
        mark = marks.next(progress)
        assert mark.step > progress.phase_step
        progress = Progress(step=before + mark.step, phase_step=mark.step)
        found += [mark.step] * bool(due(mark))
    return found


@pytest.mark.parametrize(("given", "due", "found"), [
    ({}, lambda mark: mark.evaluate, [5, 10, 15]),
    ({}, lambda mark: mark.epoch, [5, 10, 15]),
    ({}, lambda mark: mark.save or mark.keep, []),
    ({"evaluate_epochs": 0.5}, lambda mark: mark.evaluate, [3, 5, 8, 10, 13, 15]),
    ({"evaluate_epochs": 0.5}, lambda mark: mark.epoch, [5, 10, 15]),
    ({"evaluate_epochs": 2}, lambda mark: mark.evaluate, [10, 15]),
    ({"evaluate_steps": 6}, lambda mark: mark.evaluate, [4, 5, 10, 15]),
    ({"save_steps": 4}, lambda mark: mark.save, [2, 6, 10, 14]),
    ({"keep_epochs": 1.5}, lambda mark: mark.keep, [8, 15]),
])
def test_intervals_in_epochs_begin_with_the_phase_and_those_in_steps_with_the_run(
        given: dict[str, Any], due: Callable[[Mark], Any], found: list[int]) -> None:
    """Two steps of the run were taken before this phase."""
    assert steps(Marks(schedule=TEN, **given), due, before=2) == found


def test_the_end_of_a_phase_within_an_epoch_is_evaluated_and_completes_none() -> None:
    marks = Marks(schedule=Schedule(10, 2, 1.3), evaluate_epochs=9)
    assert steps(marks, lambda mark: mark.evaluate) == [7]
    assert steps(marks, lambda mark: mark.epoch) == [5]


def test_a_batch_may_complete_several_epochs_at_once() -> None:
    assert steps(Marks(schedule=Schedule(3, 7, 5)), lambda mark: mark.epoch and mark.evaluate) == [1, 2, 3]
