"""What a list says of runs that have ended is kept, and believed as long as their folders have not changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs import index, listing
from drumbeat.launch.runs.find import all_runs
from drumbeat.launch.runs.index import Index
from tests.runs import write_heartbeat, write_job, write_plan, write_state

List = Callable[..., tuple[list[str], list[str]]]
"""Options of `ls` -> its lines without the header, and the names of the runs that it has read."""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run, a failed one and one in the queue. Two runs are many, and all are settled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(listing, "MANY", 2)
    monkeypatch.setattr(index, "SETTLED_SECONDS", -60.0)
    for number, state in enumerate(("finished", "failed", "pending")):
        run = RunDir(tmp_path / "runs" / "tiny" / f"2026010{number}-100000-{state}")
        write_plan(run)
        write_job(run, "slurm", id=f"47{number}", host="login")
        if state != "pending":
            write_heartbeat(run, step=50 * (2 - number), steps=100, loss=0.5)
        write_state(run, state)  # type: ignore[arg-type]
    return tmp_path / "runs"


@pytest.fixture
def listed(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> List:
    def ls(*options: str) -> tuple[list[str], list[str]]:
        found: list[str] = []
        read = View.read
        with monkeypatch.context() as patch:
            patch.setattr(View, "read", lambda run: (found.append(run.id.rpartition("-")[2]), read(run))[1])
            assert main(["ls", "--all", *options]) == 0
        lines = capsys.readouterr().out.splitlines()
        return (lines if options else lines[1:]), found

    return ls


def test_only_runs_that_may_change_are_read_again(runs: Path, listed: List) -> None:
    lines, read = listed()
    assert read == ["pending", "failed", "finished"]
    assert [line.split()[2] for line in lines] == read
    assert listed() == (lines, ["pending"])
    facts, read = listed("--json")
    assert read == ["pending", "failed", "finished"], "their fields are more than their rows"
    assert listed("--json") == (facts, ["pending"])


@pytest.mark.parametrize("change", ["resumed", "new attempt's heartbeat", "job", "plan"])
def test_a_run_that_has_changed_is_read(runs: Path, listed: List, change: str) -> None:
    listed()
    run = all_runs(runs)[0]
    if change == "resumed":
        write_state(run, "pending")
    elif change == "job":
        write_job(run, "slurm", id="4711")
    elif change == "plan":
        run.plan.unlink()
    else:
        write_heartbeat(run, step=75, steps=100)
    lines, read = listed()
    assert read == ["pending", "finished"]
    assert {"resumed": "pending", "job": "job 4711", "plan": "damaged"}.get(change, "75%") in lines[-1]


def test_runs_that_are_moved_copied_and_deleted(runs: Path, listed: List) -> None:
    lines, _ = listed()
    finished, failed, _ = all_runs(runs)
    shutil.copytree(finished.path, runs / "misc" / finished.id, copy_function=shutil.copy2)
    failed.path.rename(runs / "misc" / failed.id)
    assert listed() == ([lines[0], lines[1].replace("tiny", "misc"), lines[2], lines[2].replace("tiny", "misc")],
                        ["pending", "failed", "finished"])
    shutil.rmtree(finished.path)
    finished.path.symlink_to(runs / "misc" / finished.id)
    assert listed()[0] == [lines[0], lines[1].replace("tiny", "misc"), lines[2].replace("tiny", "misc")]


def test_the_fields_have_the_present_folder_of_all_runs(runs: Path, listed: List) -> None:
    listed("--json")
    moved = runs.rename(runs.with_name("moved"))
    lines, read = listed("--json", "--runs", "moved")
    assert read == ["pending", "failed", "finished"]
    assert {Path(run["folder"]).parent.parent for run in json.loads("\n".join(lines))} == {moved}


def test_a_run_that_changed_a_moment_ago_is_not_kept(runs: Path, listed: List, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second change might leave the same time stamp."""
    monkeypatch.setattr(index, "SETTLED_SECONDS", 5.0)
    assert listed() == listed()
    assert list(runs.glob(".*")) == []


@pytest.mark.parametrize("text", [
    "", "{", "[]", "null", '{"format": 0}', '{"format": "F", "folder": "R", "runs": 3}',
    '{"format": "F", "folder": "R", "runs": {"tiny/20260100-100000-finished": [0, "x"]}}',
    '{"format": "F", "folder": "R", "runs": {"tiny/20260100-100000-finished": ["x", [1, 1, 1], []]}}',
    '{"format": "another", "folder": "R", "runs": {}}'])
def test_a_damaged_index_is_written_again(runs: Path, listed: List, text: str) -> None:
    lines, read = listed()
    file = Index(runs, "cells").path
    file.write_text(text.replace("F", index.FORMAT, 1).replace("R", str(runs), 1))
    assert listed() == (lines, read)
    assert listed() == (lines, ["pending"])


def test_an_index_is_private_and_no_other_users_is_believed(runs: Path, listed: List) -> None:
    lines, read = listed()
    file = Index(runs, "cells").path
    assert file.stat().st_mode & 0o777 == 0o600
    if os.geteuid() == 0:
        os.chown(file, 65534, 65534)
        assert listed() == (lines, read)
        assert (file.stat().st_uid, listed()[1]) == (0, ["pending"])


def test_where_no_index_can_be_written_the_runs_are_read(runs: Path, listed: List) -> None:
    Index(runs, "cells").path.mkdir()
    assert listed() == listed()
    assert len(list(runs.glob(".*"))) == 1


def test_two_lists_at_once(runs: Path) -> None:
    """The later one replaces the index of the earlier one; both are right."""
    finished, failed, _ = all_runs(runs)
    both = [Index.read(runs, "cells") for _ in range(2)]
    for one, run in zip(both, (finished, failed), strict=True):
        one.keep(View.read(run), [run.id])
    for one in both:
        one.write([finished, failed])
    found = Index.read(runs, "cells")
    assert [found.get(finished), found.get(failed)] == [None, [failed.id]]


def test_few_runs_need_no_index(runs: Path, listed: List, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MANY", 4)
    assert listed() == listed()
    assert list(runs.glob(".*")) == []
