"""Only regular files of a bounded size are read, and none through a link out of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drumbeat.configs.reading import open_regular


def refusal(path: Path, most: int | None = None, inside: Path | None = None) -> str:
    with pytest.raises(OSError) as error:
        open_regular(path, most=most, inside=inside)
    return str(error.value.strerror)


def test_what_is_not_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), Path("/dev/null")):
        assert refusal(path) == "it is not a regular file"


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(10**10)  # a sparse file
    assert refusal(tmp_path / "large", 10**9) == "it is too large (10,000,000,000 bytes)"
    with open_regular(tmp_path / "large", most=None) as large:
        assert large.read(2) == b"\0\0"


def test_links_stay_inside_the_folder(tmp_path: Path) -> None:
    """A link in a folder on the way counts like one at the end, and a folder may itself be reached through a link."""
    run, outside = tmp_path / "run", tmp_path / "run-2"
    for folder in (run, outside):
        (folder / "a").mkdir(parents=True)
        (folder / "a" / "file").write_text(folder.name)
    (run / "last").symlink_to("a")
    (run / "there").symlink_to(outside / "a")
    (run / "a" / "up").symlink_to("../../run-2/a/file")
    (tmp_path / "mine").symlink_to(run)
    for folder in (run, tmp_path / "mine"):
        for name in ("a/file", "last/file"):
            with open_regular(folder / name, inside=folder) as file:
                assert file.read() == b"run"
        for name in ("there/file", "a/up", "last/up"):
            assert refusal(folder / name, inside=folder) == "it is a link to a file outside of the run's folder"
