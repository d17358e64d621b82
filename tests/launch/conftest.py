"""Runs to test commands with."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from tests.launch.made import FIRST, OTHER, SECOND
from tests.runs import write_plan


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/tiny with two runs, runs/other with one."""
    monkeypatch.chdir(tmp_path)
    for name, number in (("tiny", FIRST), ("tiny", SECOND), ("other", OTHER)):
        write_plan(RunDir(tmp_path / "runs" / name / number))
    (tmp_path / "runs" / "tiny" / "latest").symlink_to(SECOND)
    return tmp_path / "runs"
