"""The rows of a run are the same whenever and however often they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.event_file import EventFile
from drumbeat.trainers.trackers.rows import Rows
from drumbeat.trainers.trackers.tracker import Row
from tests.trainers.trackers.made import CURVES, STEPS, write_attempt


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "tiny" / "20260101-100000-aaaaa")
    run.path.mkdir(parents=True)
    return run


def steps(rows: list[Row], tag: str) -> list[int]:
    return [row.step for row in rows if tag in row.values or tag in row.pictures]


def test_what_a_run_writes_is_read(run: RunDir) -> None:
    file = EventFile(run.tensorboard, purge_step=0)
    file.text("config", "a: 1", 0)
    file.scalars({"train/loss": 0.5, "train/lr": float("nan")}, 2)
    file.image("train/images", Image.new("RGB", (3, 2)), 2)
    file.flush()
    first, second = Rows(run.tensorboard).new()
    assert (first.number, first.step, first.values["train/loss"]) == (0, 2, 0.5)
    assert first.values["train/lr"] != first.values["train/lr"]
    assert (second.number, [*second.pictures]) == (1, ["train/images"])
    assert second.pictures["train/images"].startswith(b"\x89PNG")


def test_steps_that_are_computed_again_count_once(run: RunDir) -> None:
    write_attempt(run, 0, 0, 30)
    write_attempt(run, 1, 17, 45)
    write_attempt(run, 2, 0, STEPS)
    rows = list(Rows(run.tensorboard).new())
    assert {tag: steps(rows, tag) for tag in CURVES} == CURVES
    assert steps(rows, "train/images") == [12, 24, 36, 48, 60]
    assert [row.number for row in rows] == list(range(len(rows)))


def test_the_rows_are_the_same_however_the_file_grows(run: RunDir) -> None:
    """A few bytes at a time: a torn record is read when it is whole."""
    write_attempt(run, 0, 0, 13)
    (whole,) = run.tensorboard.iterdir()
    content = whole.read_bytes()
    expected = list(Rows(run.tensorboard).new())
    reader, found = Rows(run.tensorboard), []
    for size in [*range(0, len(content), 7), len(content)]:
        whole.write_bytes(content[:size])
        found += reader.new()
    assert found == expected
    assert len(expected) == 9


def test_the_torn_end_of_a_killed_attempt_is_left_out(run: RunDir) -> None:
    write_attempt(run, 0, 0, 30, torn=5)
    reader = Rows(run.tensorboard)
    before = list(reader.new())
    assert steps(before, "train/loss")[-1] == 30
    assert steps(before, "validation/loss") == [6, 12, 18, 24]
    write_attempt(run, 1, 27, STEPS)
    rows = [*before, *reader.new()]
    assert {tag: steps(rows, tag) for tag in CURVES} == CURVES
    assert rows == list(Rows(run.tensorboard).new())


def test_a_damaged_length_ends_the_file(run: RunDir) -> None:
    write_attempt(run, 0, 0, 10)
    (file,) = run.tensorboard.iterdir()
    good = list(Rows(run.tensorboard).new())
    file.write_bytes(file.read_bytes() + b"\xff" * 100)
    assert list(Rows(run.tensorboard).new()) == good
    file.write_bytes(b"\0" * 100)
    assert list(Rows(run.tensorboard).new()) == []


def test_no_file_yet(run: RunDir) -> None:
    assert list(Rows(run.tensorboard).new()) == []
