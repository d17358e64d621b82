"""The faults of a drill: which there are, when they are injected, and when they cannot be."""

from __future__ import annotations

from drumbeat.launch.commands.drill import TYPES
from drumbeat.launch.drill.faults import FAULTS


def test_the_command_names_all_types() -> None:
    assert tuple(FAULTS) == TYPES
