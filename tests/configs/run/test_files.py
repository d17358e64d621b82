"""Files that are written whole, on a disk that is full too."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.run.files import write_soon


def test_a_full_disk_takes_a_text_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "heartbeat.json"
    assert write_soon(file, '{"a": 1}', 100)

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert write_soon(file, '{"paused": "the disk is full"}', 100)
    assert file.read_text() == '{"paused": "the disk is full"}'.ljust(100)
    assert not write_soon(file, "x" * 101, 100)
    assert file.read_text() == '{"paused": "the disk is full"}'.ljust(100)
    assert not write_soon(tmp_path / "new.json", "{}", 100)
    assert [path.name for path in tmp_path.iterdir()] == ["heartbeat.json"]
