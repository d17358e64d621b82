"""Files that are written whole, on a disk that is full too."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.run.files import (
    DamagedError,
    open_file,
    read_end,
    read_text,
    run_folder,
    write_first,
    write_soon,
    write_text,
)


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


@pytest.mark.parametrize("name", [
    "plan.json", "config.yaml", "attempts/000/heartbeat.json", "checkpoints/last/state.json", "evaluation/a/roc.png",
    "tensorboard/events", "tensorboard/evaluation/events", "nondeterministic/a.json", "code/snapshot.json",
    "code-12/snapshot.json", "submitit/controller.log"])
@pytest.mark.parametrize("run", ["runs/tiny/20260101-000000-abcde", "runs/attempts/20260101-000000-abcde"])
def test_the_run_that_a_file_belongs_to(run: str, name: str) -> None:
    assert run_folder(Path(run, name)) == Path(run)


def test_what_is_read_of_a_run(tmp_path: Path) -> None:
    log = tmp_path / "attempts" / "000" / "rank0.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"first\nlast\xff\n")
    assert (read_text(log, 20), read_end(log, 6)) == ("first\nlast\N{REPLACEMENT CHARACTER}\n",
                                                     "last\N{REPLACEMENT CHARACTER}\n")
    with pytest.raises(DamagedError, match="it is too large"):
        read_text(log, 5)
    with pytest.raises(FileNotFoundError):
        open_file(log / "below", None)
    (tmp_path / "attempts" / "001").symlink_to(tmp_path.parent)
    (tmp_path.parent / "rank0.log").write_text("of somebody else")
    with pytest.raises(DamagedError) as error:
        open_file(tmp_path / "attempts" / "001" / "rank0.log", None)
    assert error.value.reason == "it is a link to a file outside of the run's folder"


def test_a_private_file_stays_private(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    write_text(file, "a", private=True)
    assert file.stat().st_mode & 0o777 == 0o600
    write_text(file, "b")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("b", 0o600)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_the_first_text_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Also on a file system without hard links."""
    def refused(*given: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    file = tmp_path / "stop.json"
    assert [write_first(file, "first"), write_first(file, "second")] == [True, False]
    assert file.read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["stop.json"]
