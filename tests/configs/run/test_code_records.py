"""The records of a run's copy of the code; tests/configs/run/test_records.py reads back all records."""

from __future__ import annotations

from drumbeat.configs.run.code_records import CodeSnapshot, CodeTree


def test_a_snapshot_of_an_older_version_has_defaults() -> None:
    tree = {"name": "lab", "folder": "/home/me/lab"}
    snapshot = CodeSnapshot.parse({"trees": [tree], "home": "drumbeat/src", "folder": "lab", "time": 1.0})
    assert snapshot == CodeSnapshot(trees=(CodeTree(name="lab", folder="/home/me/lab"),), home="drumbeat/src",
                                    folder="lab", time=1.0)
