"""The benchmark of lists, with few runs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.listing import make_runs, seconds
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.find import all_runs


def test_the_runs_are_such_as_a_list_reads(tmp_path: Path) -> None:
    runs = all_runs(make_runs(tmp_path, 12))
    assert [View.read(run).state for run in runs] == [
        "running" if number == 3 else "failed" if number == 7 else "finished" for number in range(12)]
    assert seconds(["ls"], tmp_path / "runs", index=True, tries=1) > 0
