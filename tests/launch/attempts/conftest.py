"""A run whose attempts end in all ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")
