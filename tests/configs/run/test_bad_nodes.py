"""Nodes that failed are remembered in the folder of all runs; what else is there changes nothing."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from drumbeat.configs.run.bad_nodes import (
    AHEAD,
    DAY,
    FOLDER,
    LONGEST_REASON,
    BadNode,
    forget,
    remember,
    remembered,
)

NOW = 1_795_000_000.0
RUN = "20261128-183858-ypnga"


def names(runs: Path, now: float = NOW) -> list[str]:
    return [one.node for one in remembered(runs, now)]


def test_a_node_is_remembered_for_a_day(tmp_path: Path) -> None:
    assert remembered(tmp_path) == []
    assert remember(tmp_path, "n2", "it  has lost\nits GPU", RUN, NOW)
    assert remembered(tmp_path, NOW) == [BadNode(node="n2", reason="it has lost its GPU", run=RUN, time=NOW)]
    assert (names(tmp_path, NOW + DAY - 1), names(tmp_path, NOW + DAY)) == (["n2"], [])
    assert remembered(tmp_path, NOW)[0].until == NOW + DAY


def test_the_last_failure_of_a_node_counts(tmp_path: Path) -> None:
    for number, when in enumerate((NOW - 9, NOW, NOW - 5)):
        remember(tmp_path, "n2", f"reason {number}", f"run-{number}", when)
    remember(tmp_path, "n1", "lost", RUN, NOW - 20)
    assert [(one.node, one.reason) for one in remembered(tmp_path, NOW)] == [("n1", "lost"), ("n2", "reason 1")]


def test_forgetting_a_node_forgets_all_of_its_failures(tmp_path: Path) -> None:
    for run in ("a", "b"):
        remember(tmp_path, "n2", "lost", run, NOW)
    remember(tmp_path, "n20", "lost", RUN, NOW)
    forget(tmp_path, ["n2", "n3"])
    assert names(tmp_path) == ["n20"]
    forget(tmp_path / "nowhere", ["n2"])


def test_old_files_are_removed(tmp_path: Path) -> None:
    remember(tmp_path, "n1", "lost", RUN, NOW - DAY)
    remember(tmp_path, "n2", "lost", RUN, NOW)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [f"n2.{RUN}.json"]


def test_many_launchers_at_once_lose_and_tear_nothing(tmp_path: Path) -> None:
    """A reader meanwhile sees whole records only."""
    with ThreadPoolExecutor(16) as pool:
        written = [pool.submit(remember, tmp_path, f"n{number % 50}", "lost", f"run-{number % 4}", NOW + number / 1000)
                   for number in range(400)]
        seen = [len(remembered(tmp_path, NOW)) for _ in range(50)]
        assert all(one.result() for one in written)
    assert seen == sorted(seen)
    assert len(names(tmp_path)) == 50
    assert all(json.loads(path.read_text())["reason"] == "lost" for path in (tmp_path / FOLDER).iterdir())


@pytest.mark.parametrize(("name", "content"), [
    (f"n9.{RUN}.json", "{"),
    (f"n9.{RUN}.json", "[]"),
    (f"n9.{RUN}.json", json.dumps({"node": "n9", "reason": 7, "run": RUN, "time": NOW})),
    (f"n9.{RUN}.json", json.dumps({"node": "n9", "reason": "", "run": RUN, "time": NOW + 2 * AHEAD})),
    (f"n9.{RUN}.json", json.dumps({"node": "n9", "reason": "", "run": RUN, "time": 1e300})),
    (f"n9.{RUN}.json", json.dumps({"node": "n8", "reason": "", "run": RUN, "time": NOW})),
    (f"n9.{RUN}.json", json.dumps({"node": "n9", "reason": "x" * 10**6, "run": RUN, "time": NOW})),
    (f"n9 n8.{RUN}.json", json.dumps({"node": "n9 n8", "reason": "", "run": RUN, "time": NOW})),
    (f"-x.{RUN}.json", json.dumps({"node": "-x", "reason": "", "run": RUN, "time": NOW})),
    ("notes.txt", "n9 is broken"),
], ids=["not-json", "list", "type", "future", "infinite", "other-node", "huge", "blank", "option", "text"])
def test_foreign_files_are_ignored(tmp_path: Path, name: str, content: str) -> None:
    remember(tmp_path, "n2", "lost", RUN, NOW)
    (tmp_path / FOLDER / name).write_text(content)
    assert names(tmp_path) == ["n2"]
    assert remember(tmp_path, "n3", "lost", RUN, NOW)
    forget(tmp_path, ["n2", "n9"])
    assert names(tmp_path) == ["n3"]


def test_pipes_folders_and_links_are_ignored(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    remember(runs, "n2", "lost", RUN, NOW)
    os.mkfifo(runs / FOLDER / f"n4.{RUN}.json")
    (runs / FOLDER / f"n5.{RUN}.json").mkdir()
    outside = tmp_path / f"n6.{RUN}.json"
    BadNode(node="n6", reason="", run=RUN, time=NOW).write(outside)
    (runs / FOLDER / outside.name).symlink_to(outside)
    assert names(runs) == ["n2"]


def test_where_nothing_can_be_remembered(tmp_path: Path) -> None:
    """The launcher goes on at once."""
    assert not remember(tmp_path / "nowhere", "n2", "lost", RUN, NOW)
    assert not remember(tmp_path, "n2;rm -r x", "lost", RUN, NOW)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / FOLDER).write_text("")
    assert not remember(tmp_path / "a", "n2", "lost", RUN, NOW)
    assert remembered(tmp_path / "a") == []
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / FOLDER).symlink_to(tmp_path)
    assert not remember(tmp_path / "b", "n2", "lost", RUN, NOW)
    assert not list(tmp_path.glob("n2*"))


def test_names_and_reasons_are_bounded(tmp_path: Path) -> None:
    assert remember(tmp_path, "n2", "x" * 10**6, "../" * 100, NOW)
    (found,) = remembered(tmp_path, NOW)
    assert len(found.reason) == LONGEST_REASON
    (path,) = (tmp_path / FOLDER).iterdir()
    assert len(path.name) < 255


def test_whoever_may_make_runs_may_remember_nodes(tmp_path: Path) -> None:
    (runs := tmp_path / "runs").mkdir()
    runs.chmod(0o2770)
    remember(runs, "n2", "lost", RUN, NOW)
    assert stat.S_IMODE((runs / FOLDER).stat().st_mode) == 0o2770


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders for others")
def test_root_makes_the_folder_for_the_owner_of_the_runs(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    assert remember(tmp_path, "n2", "lost", RUN, NOW)
    found = (tmp_path / FOLDER).stat()
    assert (found.st_uid, found.st_gid) == (4711, 4712)
