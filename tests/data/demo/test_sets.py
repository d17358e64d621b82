"""Synthetic sets: whole or not there, the same each time, and never over something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.data.demo.sets import TOPICS, write_set
from drumbeat.data.images import ImageFolder
from drumbeat.data.text import Texts, Vocabulary


def test_a_set_is_written_once_and_the_same_everywhere(tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    result = write_set(tmp_path / "a", kind="news", progress=lambda done, total: progress.append((done, total)))
    assert (result.images, result.written, progress[-1]) == (2400, True, (2400, 2400))
    assert not write_set(tmp_path / "a", kind="news").written
    write_set(tmp_path / "b", kind="news")
    for name in ("train.csv", "test.csv", "README.txt"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    vocabulary = Vocabulary(file=str(tmp_path / "a" / "train.csv"), text="content")
    stories = Texts(file=str(tmp_path / "a" / "test.csv"), text="content", id="id", labels=list(TOPICS),
                    vocabulary=vocabulary)
    assert (len(stories), stories.classes) == (400, list(TOPICS))


def test_a_folder_with_other_content_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="holds something else than this set"):
        write_set(tmp_path / "mine", kind="hymenoptera")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


def test_a_dataset_with_a_missing_file_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "insects"
    write_set(folder, kind="hymenoptera")
    assert ImageFolder(root=str(folder / "train")).classes == ["ants", "bees"]
    (folder / "val" / "ants" / "002.jpg").unlink()
    with pytest.raises(FileExistsError, match="1 of its 120 files are missing"):
        write_set(folder, kind="hymenoptera")


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        if done == 3:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_set(tmp_path / "insects", kind="hymenoptera", progress=fail)
    assert list(tmp_path.iterdir()) == []
