"""The copy of a run's code is recorded with its trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.code_records import CodeSnapshot, CodeTree, with_originals
from drumbeat.configs.run.files import DamagedError


def test_trees_are_records_of_their_own(tmp_path: Path) -> None:
    tree = CodeTree(name="lab", folder="/home/me/lab", secret=("key.pem",))
    CodeSnapshot(trees=(tree,), home="drumbeat/src", folder="lab").write(tmp_path / "snapshot.json")
    assert CodeSnapshot.require(tmp_path / "snapshot.json").trees == (tree,)


def test_a_tree_without_a_folder_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "snapshot.json").write_text('{"trees": [{"name": "lab"}], "home": "", "folder": ""}')
    with pytest.raises(DamagedError, match=r"'trees\[0\]\.folder' is missing"):
        CodeSnapshot.read(tmp_path / "snapshot.json")


@pytest.mark.parametrize("code", ["code", "code-2"])
@pytest.mark.parametrize("here", ["lab", "."])
def test_a_text_names_the_users_file_and_not_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str,
                                                      here: str) -> None:
    """Whether the run's folder is written in full, or from the folder in which the command was typed."""
    run = tmp_path / "lab" / "runs" / "a"
    (run / code).mkdir(parents=True)
    tree = CodeTree(name="lab", folder=str(tmp_path / "lab"))
    CodeSnapshot(trees=(tree,), home="drumbeat/src", folder="lab").write(run / code / "snapshot.json")
    monkeypatch.chdir(tmp_path / here)
    text = f'File "{run}/{code}/lab/sets.py", (PATHruns/a/{code}/lab/sets.py:3, in read)'
    path = "" if here == "lab" else "lab/"
    assert with_originals(text.replace("PATH", path), run) == (
        f'File "{tmp_path}/lab/sets.py", ({path}sets.py:3, in read)')


def test_a_damaged_snapshot_does_not_hide_an_error(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "snapshot.json").write_text("{")
    assert with_originals("it failed", tmp_path) == "it failed"
