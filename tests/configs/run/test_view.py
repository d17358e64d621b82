"""What a command knows about a run: each file is read once, and the newest counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.run.files import DamagedError, read_object
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Job, Result
from drumbeat.configs.run.view import View
from tests.runs import write_heartbeat, write_job, write_plan, write_state


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that was planned, and no more."""
    run = RunDir(tmp_path / "tiny" / "20260101-100000-aaaaa")
    write_plan(run)
    return run


def test_a_run_that_was_only_planned(run: RunDir) -> None:
    view = View.read(run)
    assert (view.state, view.verdict, view.ended, view.last_heartbeat, view.number) == (None, "", False, 0.0, -1)
    assert (view.backend, view.job, view.attempt, view.heartbeat, view.result) == ("local", None, None, None, None)


def test_everything_that_is_there(run: RunDir) -> None:
    write_job(run, "slurm", id="4711", time=1.0)
    run.claim_attempt()
    write_state(run, "finished", "finished")
    Result(steps=1, samples_seen=2, overshoot=0).write(run.result)
    view = View.read(run)
    assert (view.state, view.verdict, view.ended, view.number) == ("finished", "finished", True, 0)
    assert (view.backend, view.job) == ("slurm", Job(backend="slurm", id="4711", time=1.0))
    assert view.result == Result(steps=1, samples_seen=2, overshoot=0)


def test_each_file_is_read_once(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    write_job(run)
    write_heartbeat(run, step=1)
    write_state(run, "running")
    read: list[str] = []

    def reading(path: Path) -> dict[str, Any] | None:
        read.append(path.name)
        return read_object(path)

    monkeypatch.setattr("drumbeat.configs.run.record.read_object", reading)
    view = View.read(run)
    assert (view.state, view.ended, view.backend, view.verdict) == ("running", False, "local", "")
    assert view.seconds_since_heartbeat() < 60
    assert sorted(read) == ["fork.json", "heartbeat.json", "job.json", "plan.json", "ranks.json", "result.json",
                            "status.json", "versions.json"]


def test_a_run_that_starts_again_has_come_as_far_as_before(run: RunDir) -> None:
    write_heartbeat(run, step=7, pause_reason="the disk is full", ago=30)
    write_state(run, "running", ago=60)
    assert (View.read(run).state, View.read(run).verdict) == ("paused", "the disk is full")
    run.claim_attempt()
    run.claim_attempt()
    view = View.read(run)
    assert view.heartbeat and (view.heartbeat.step, view.number) == (7, 2)
    assert (view.state, view.verdict) == ("running", ""), "the attempt that waited for the disk is over"


def test_the_last_heartbeat_is_the_newer_of_both_files(run: RunDir) -> None:
    write_heartbeat(run, ago=50)
    write_state(run, "running", ago=100)
    assert 49 < View.read(run).seconds_since_heartbeat() < 60
    write_state(run, "running", ago=10)
    assert 9 < View.read(run).seconds_since_heartbeat() < 20


def test_a_run_that_ended_does_not_wait(run: RunDir) -> None:
    write_heartbeat(run, pause_reason="the disk is full")
    write_state(run, "failed", "could not save")
    assert (View.read(run).state, View.read(run).verdict) == ("failed", "could not save")


@pytest.mark.parametrize("name", ["plan", "status", "job", "result"])
def test_a_damaged_file_is_named(run: RunDir, name: str) -> None:
    (run.path / f"{name}.json").write_text("[]")
    with pytest.raises(DamagedError) as raised:
        View.read(run)
    assert (raised.value.path, raised.value.reason) == (run.path / f"{name}.json", "it contains a list, not an object")


def test_a_run_without_its_plan_is_damaged(run: RunDir) -> None:
    run.plan.unlink()
    with pytest.raises(DamagedError, match="it is missing"):
        View.read(run)
