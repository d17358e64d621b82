"""What a set tells about its samples: by a method or an attribute, of texts or numbers, through a split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from drumbeat.data.sample_names import sample_groups, sample_names
from drumbeat.data.splits import Split
from drumbeat.data.user_code import name_of


class Told:
    """Ten samples, whose names and groups are what it is given."""

    def __init__(self, *, names: Any = None, groups: Any = None) -> None:
        self.names, self.groups = names, groups

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        return index


TEXTS = [f"patient {number // 2}" for number in range(10)]


@pytest.mark.parametrize("given", [TEXTS, tuple(TEXTS), np.array(TEXTS), lambda: TEXTS, lambda: iter(TEXTS),
                                   lambda: np.array(TEXTS)])
def test_a_method_or_a_value_for_each_sample(given: Iterable[object]) -> None:
    of = Told(names=given, groups=given)
    assert (sample_names(of), sample_groups(of), name_of(of, 7)) == (TEXTS, TEXTS, "patient 3")
    split = Split(of=of, part="train", fractions={"train": 0.5, "rest": 0.5}, by="group")
    assert sample_groups(split) == sample_names(split) == [TEXTS[row] for row in split.indices]
    assert 0 < len(split) < 10


def test_a_set_that_tells_none() -> None:
    assert sample_names(object()) is sample_groups(Told()) is None


@pytest.mark.parametrize(("given", "text"), [(["a"], "Told has 10 samples, but 1 groups"),
                                             (10, "groups of Told must be a value for each sample, not 10"),
                                             ("patient", "groups of Told must be .* not 'patient'")])
def test_one_for_each_sample(given: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        sample_groups(Told(groups=given))
