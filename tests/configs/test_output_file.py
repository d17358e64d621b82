"""What commands write is complete or not there, and a disk that refuses it is named."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.output_file import disk_fault, replacing
from tests.disks import break_disk, mounted


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk") as folder:
        yield folder


def test_the_new_file_replaces_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("old")
    with replacing(tmp_path / "a.pt") as first, replacing(tmp_path / "a.pt") as second:
        assert first != second
        assert {path.suffix for path in (first, second)} == {".pt"}
        first.write_text("first")
        second.write_text("second")
        assert (tmp_path / "a.pt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    assert (tmp_path / "a.pt").read_text() == "first"


def test_after_an_error_the_old_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.pt") as new:
        new.write_text("half")
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    assert (tmp_path / "a.pt").read_text() == "old"


@pytest.mark.parametrize("how", ["bytes", "inodes", "read-only"])
@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_a_disk_that_accepts_nothing_is_named(disk: Path, how: str, kind: type[Exception]) -> None:
    """Also if a library has raised an error of its own."""
    break_disk(disk, how)
    words = {"bytes": "the disk is full", "inodes": "no inodes left", "read-only": "the disk is read-only"}
    if how == "read-only" and kind is RuntimeError:
        pytest.skip("a library that hides the error of a read-only disk cannot create its file at all")
    with pytest.raises(RunError, match=words[how]) as raised, replacing(disk / "weights.pt") as temporary:
        try:
            temporary.write_bytes(bytes(2**20))
        except OSError as error:
            raise error if kind is OSError else RuntimeError("writing failed") from None
    assert raised.value.faults[0].where == str(disk / "weights.pt")
    assert not list(disk.glob("*weights*"))


def test_other_errors_are_not_about_the_disk(tmp_path: Path) -> None:
    assert disk_fault(ValueError("boom"), tmp_path / "a") is None
    assert disk_fault(FileNotFoundError(errno.ENOENT, "no such file"), tmp_path / "a") is None
    fault = disk_fault(OSError(errno.EDQUOT, "quota"), tmp_path / "no" / "folder" / "a")
    assert fault is not None
    assert fault.what == "your disk quota is used up"
