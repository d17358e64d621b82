"""The sizes of folders, and what their removal frees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drumbeat.launch.runs.disk_use import Freed, bytes_text, disk_use


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of 1,000 and 100 bytes, of which the larger has a second name elsewhere; a link and a pipe."""
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "large").write_bytes(bytes(1000))
    (folder / "small").write_bytes(bytes(100))
    os.link(folder / "below" / "large", tmp_path / "other name")
    (tmp_path / "huge").write_bytes(bytes(10_000))
    (folder / "link").symlink_to(tmp_path / "huge")
    (folder / "away").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    return folder


def test_links_are_not_followed(folder: Path) -> None:
    assert disk_use(folder) == 1100
    assert disk_use(folder / "link") == disk_use(folder / "pipe") == disk_use(folder / "missing") == 0
    assert disk_use(folder / "small") == 100


def test_a_file_with_several_names_is_freed_with_the_last_of_them(folder: Path) -> None:
    assert Freed().by(folder) == 100
    freed = Freed()
    assert [freed.by(folder.parent / "other name"), freed.by(folder)] == [0, 1100]


def test_sizes_as_text() -> None:
    assert [bytes_text(count) for count in (0, 49_999, 1_250_000, 999_900_000, 1_234_000_000_000)] == [
        "0.0 MB", "0.0 MB", "1.2 MB", "999.9 MB", "1,234.0 GB"]
