"""What trackers have in common."""

from __future__ import annotations

from drumbeat.configs.trackers import KNOWN
from drumbeat.trainers import trackers
from drumbeat.trainers.trackers.tracker import Tracker


def test_the_short_names_are_those_of_the_trackers() -> None:
    found = {name.lower(): f"{trackers.__name__}.{name}" for name in trackers.__all__
             if isinstance(one := getattr(trackers, name), type) and issubclass(one, Tracker) and one is not Tracker}
    assert found == KNOWN
    assert {name: getattr(trackers, target.rpartition(".")[2]).package for name, target in KNOWN.items()} == {
        name: name for name in KNOWN}
