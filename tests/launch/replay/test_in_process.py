"""The process that trains a replay tells a user's mistake on one screen. `test_replay.py` stops it in pdb."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.launch.replay.in_process import main


def test_a_folder_without_a_plan_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(str(tmp_path)) == 2
    assert capsys.readouterr().err.startswith("error: a file of the run cannot be read: it is missing\n")
