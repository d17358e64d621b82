"""What is told about the sets of a run."""

from __future__ import annotations

from typing import Any

from drumbeat.trainers.build import Sets
from drumbeat.trainers.set_notes import notes_of


class Noted(list[Any]):
    """A set with notes."""

    def __init__(self, *notes: str) -> None:
        super().__init__([1])
        self.told = list(notes)

    def notes(self) -> list[str]:
        return self.told


def test_a_note_names_the_sets_that_it_is_true_of() -> None:
    sets = Sets(train=Noted("left out 2 .jxl", "dark"), validation=Noted("left out 2 .jxl"), test=[1],
                train_transforms=[], evaluate_transforms=[])
    assert notes_of(sets) == ["data.train, data.validation: left out 2 .jxl", "data.train: dark"]
