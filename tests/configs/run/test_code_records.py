"""The copy of a run's code is recorded with its trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.code_records import CodeSnapshot, CodeTree
from drumbeat.configs.run.files import DamagedError


def test_trees_are_records_of_their_own(tmp_path: Path) -> None:
    tree = CodeTree(name="lab", folder="/home/me/lab", secret=("key.pem",))
    CodeSnapshot(trees=(tree,), home="drumbeat/src", folder="lab").write(tmp_path / "snapshot.json")
    assert CodeSnapshot.require(tmp_path / "snapshot.json").trees == (tree,)


def test_a_tree_without_a_folder_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "snapshot.json").write_text('{"trees": [{"name": "lab"}], "home": "", "folder": ""}')
    with pytest.raises(DamagedError, match=r"'trees\[0\]\.folder' is missing"):
        CodeSnapshot.read(tmp_path / "snapshot.json")
