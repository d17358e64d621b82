"""Finding a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.launch.sweeps.find import all_sweeps, find_sweep, require_sweep, sweep_command
from tests.launch.sweeps.made import made_sweep


def test_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = made_sweep(tmp_path / "runs", {"seed": "0..1"})
    assert find_sweep("s", Path("runs")) == find_sweep("runs/s", Path("elsewhere")) == folder
    assert find_sweep("t", Path("runs")) is find_sweep("", Path("runs")) is None
    assert list(all_sweeps(Path("runs"))) == [folder]
    assert sweep_command("status", folder) == "drumbeat status s"
    with pytest.raises(RunError, match="Did you mean 's'"):
        require_sweep("S", Path("runs"))
