"""Events on a disk that is full for a while: nothing raises, nothing is torn, nothing is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from drumbeat.trainers import event_file
from drumbeat.trainers.event_file import EventFile


def points(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


def test_a_full_disk_delays_the_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "SECONDS_BETWEEN_WRITES", 0.0)
    events = EventFile(tmp_path / "tensorboard", purge_step=0)
    events.scalars({"loss": 1.0}, 1)
    pwrite = os.pwrite

    def full(handle: int, content: bytes, offset: int) -> int:
        """The disk has room for 10 more bytes."""
        if len(content) > 10 and offset == events.size:
            return pwrite(handle, content[:10], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        events.scalars({"loss": 2.0}, 2)
        assert not events.flush()
        assert events.path.stat().st_size == events.size
        assert points(tmp_path / "tensorboard") == [(1, 1.0)]
    events.scalars({"loss": 3.0}, 3)
    assert points(tmp_path / "tensorboard") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_folder_that_is_gone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*given: Any, **named: Any) -> int:
        raise OSError(errno.ESTALE, "Stale file handle")

    events = EventFile(tmp_path, purge_step=0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", gone)
        events.scalars({"loss": 1.0}, 1)
        assert not events.flush()
    events.close()
    assert points(tmp_path) == [(1, 1.0)]


def test_a_file_server_that_reports_a_full_disk_at_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS does."""
    events = EventFile(tmp_path, purge_step=0)
    close = os.close

    def full(handle: int) -> None:
        close(handle)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", full)
        events.scalars({"loss": 1.0}, 1)
        assert not events.flush()
    events.scalars({"loss": 2.0}, 2)
    events.close()
    assert points(tmp_path) == [(1, 1.0), (2, 2.0)]


def test_a_folder_below_a_disk_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """What is written there would be hidden when the disk is back."""
    (tmp_path / "run").mkdir()
    events = EventFile(tmp_path / "run" / "tensorboard", purge_step=0)
    assert events.flush()
    (tmp_path / "run").rename(tmp_path / "gone")
    events.scalars({"loss": 1.0}, 1)
    assert not events.flush()
    assert not (tmp_path / "run").exists()
    (tmp_path / "gone").rename(tmp_path / "run")
    events.close()
    assert points(tmp_path / "run" / "tensorboard") == [(1, 1.0)]


def test_events_that_are_lost_in_the_end_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = EventFile(tmp_path / "nowhere" / "tensorboard")
    events.close()
    assert "bytes of TensorBoard events are lost: the disk is full or gone\n" in capsys.readouterr().out


def test_events_that_wait_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "MAX_BYTES", 200)
    (tmp_path / "in the way").write_text("")
    events = EventFile(tmp_path / "in the way" / "tensorboard", purge_step=0)
    for step in range(100):
        events.scalars({"loss": 1.0}, step)
    assert not events.flush()
    assert events.waiting.tell() < 300


def test_a_later_file_purges_what_an_earlier_one_has_from_its_step_on(tmp_path: Path) -> None:
    """However quickly they follow each other."""
    for number, first in enumerate((1, 3, 2)):
        events = EventFile(tmp_path, purge_step=first)
        for step in range(first, first + 3):
            events.scalars({"loss": float(number)}, step)
        events.close()
    assert points(tmp_path) == [(1, 0.0), (2, 2.0), (3, 2.0), (4, 2.0)]


def test_values_of_a_point_are_one_record_and_records_keep_their_order(tmp_path: Path) -> None:
    events = EventFile(tmp_path, purge_step=0)
    events.flush()
    size = events.size
    events.scalars({"loss": 1.0, "rate": 0.5}, 1)
    events.text("note", "later", 1)
    events.close()
    kinds = [[value.tag for value in event.summary.value] for event in EventFileLoader(str(events.path)).Load()]
    assert [tags for tags in kinds if tags] == [["loss", "rate"], ["note/text_summary"]]
    assert events.path.stat().st_size == events.size > size
