"""What commands write is complete or not there, and a disk that refuses it is named."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.output_file import disk_fault, whole_file
from tests.disks import break_disk, mounted


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk") as folder:
        yield folder


def test_a_file_takes_its_place_when_it_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("old")
    with whole_file(file) as temporary:
        assert temporary.suffix == ".csv", "libraries choose the format by it"
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    with pytest.raises(ValueError, match="boom"), whole_file(file) as temporary:
        temporary.write_text("half")
        raise ValueError("boom")
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("how", ["bytes", "inodes", "read-only"])
@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_a_disk_that_accepts_nothing_is_named(disk: Path, how: str, kind: type[Exception]) -> None:
    """Also if a library has raised an error of its own."""
    break_disk(disk, how)
    words = {"bytes": "the disk is full", "inodes": "no inodes left", "read-only": "the disk is read-only"}
    if how == "read-only" and kind is RuntimeError:
        pytest.skip("a library that hides the error of a read-only disk cannot create its file at all")
    with pytest.raises(RunError, match=words[how]) as raised, whole_file(disk / "weights.pt") as temporary:
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
