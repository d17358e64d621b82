"""Launchers with a fake torchrun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.launch.node.stage import Stage
from tests.processes import until


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(**options: Any) -> Stage:
        made.append(Stage(tmp_path, **options))
        return made[-1]

    yield make
    for stage in made:
        for launcher in stage.launchers:
            launcher.kill()
            launcher.communicate()
        until(lambda stage=stage: not stage.left())  # type: ignore[misc]
