"""Logs and stacks of any size, and files that are none."""

from __future__ import annotations

import os
from pathlib import Path

from drumbeat.launch.attempts.logs import TAIL, end_of, numbered


def test_the_end_of_a_large_file(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as file:
        file.truncate(100 * TAIL)
        file.seek(0, os.SEEK_END)
        file.write(b"\xffthe end")
    assert len(end_of(tmp_path / "log")) == TAIL
    assert end_of(tmp_path / "log").endswith("\ufffdthe end")


def test_what_is_no_file_is_empty(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert [end_of(tmp_path / name) for name in ("missing", "pipe", "zero", ".")] == [""] * 4


def test_files_by_their_number(tmp_path: Path) -> None:
    for name in ("rank10.log", "rank2.log", "rank.log", "rank2 (copy).log", "rank\u00b2.log", "rank3.stacks"):
        (tmp_path / name).touch()
    assert [(number, path.name) for number, path in numbered(tmp_path, "rank", ".log")] == [
        (2, "rank2.log"), (10, "rank10.log")]
