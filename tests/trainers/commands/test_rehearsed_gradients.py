"""Parameters without a gradient: refused on several ranks, with what to type, and noted otherwise."""

from __future__ import annotations

import pytest

from drumbeat.trainers.commands.rehearsed_gradients import listed, without_gradient

UNUSED = ["extra.bias", "extra.weight", "scale", "task.weight"]


def test_the_error_says_what_to_freeze_and_the_other_way() -> None:
    notes: list[str] = []
    (fault,) = without_gradient([UNUSED, UNUSED], "phases.head", 2, notes, find_unused=False)
    assert fault.what == "4 parameters get no gradient, which DistributedDataParallel refuses on 2 ranks"
    assert fault.remedy == ("If they are never used, freeze them: phases.head.freeze=[extra, scale, task]\n"
                            "If only some steps use them: find_unused_parameters=true")
    assert notes == []


@pytest.mark.parametrize(("ranks", "find_unused", "note"), [
    (1, False, "a parameter gets no gradient in some passes in phase head, and the run would fail on several ranks: a"),
    (1, True, "a parameter gets no gradient in some passes in phase head: a"),
    (2, True, "a parameter gets no gradient in some passes in phase head: a"),
])
def test_a_note_where_it_is_possible(ranks: int, find_unused: bool, note: str) -> None:
    notes: list[str] = []
    assert without_gradient([["a"], []], "phases.head", ranks, notes, find_unused=find_unused) == []
    assert notes == [note]
    assert without_gradient([[], []], "phases.head", 2, notes, find_unused=False) == []


def test_a_list_is_cut() -> None:
    assert listed([*"abcdefgh"]) == "a\nb\nc\nd\ne\nf\n... and 2 more"
