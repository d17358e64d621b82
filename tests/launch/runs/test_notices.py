"""Which events there are, and who reports them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.operation import Notify
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import State
from drumbeat.configs.run.view import View
from drumbeat.launch.runs import notices as module
from drumbeat.launch.runs.listing import describe_each
from drumbeat.launch.runs.notices import claim, notices, report
from tests.runs import write_heartbeat, write_job, write_plan, write_state

HOUR = 3600.0


def keys(run: RunDir, notify: Notify | None = None, queued: float = 0.0) -> list[str]:
    return [notice.key for notice in notices(View.read(run), notify or Notify(), queued)]


@pytest.mark.parametrize(("state", "expected"), [
    ("finished", ["finished-0-7"]), ("failed", ["failed-0-7"]), ("stopped", []), ("cancelled", []), ("running", []),
    ("pending", []), ("preempted", [])])
def test_the_events_of_states(run: RunDir, state: State, expected: list[str]) -> None:
    write_job(run, id="1", time=7.0)
    write_state(run, state)
    assert keys(run) == expected
    assert keys(run, Notify(on=["paused"])) == []


def test_a_run_that_fails_again_after_a_resume_is_another_event(run: RunDir) -> None:
    """Also if it fails before its next attempt."""
    found = set()
    for submitted in (7.0, 8.0):
        write_job(run, id="1", time=submitted)
        write_state(run, "failed")
        found |= {*keys(run)}
    run.claim_attempt()
    write_state(run, "failed")
    assert found | {*keys(run)} == {"failed-0-7", "failed-0-8", "failed-1-8"}


def test_a_pause_is_one_event_until_the_run_has_progressed(run: RunDir) -> None:
    write_heartbeat(run, step=12, pause_reason="the disk is full")
    assert keys(run) == ["paused-12"]
    run.claim_attempt()
    write_state(run, "running")
    write_heartbeat(run, step=12, pause_reason="the disk is full")
    assert keys(run) == ["paused-12"]
    write_heartbeat(run, step=13, pause_reason="the disk is full")
    assert keys(run) == ["paused-13"]


@pytest.mark.parametrize("state", ["pending", "preempted"])
def test_a_long_wait_is_an_event_while_it_lasts_and_when_it_ends(run: RunDir, state: State) -> None:
    write_state(run, state, ago=11 * HOUR)
    assert keys(run) == []
    write_state(run, state, ago=13 * HOUR)
    status = View.read(run).status
    assert status
    (notice,) = notices(View.read(run), Notify())
    assert notice.key == f"waiting-{status.time:.0f}"
    assert notice.title.startswith("tiny is waiting for 13:00:0")
    write_state(run, "running")
    assert keys(run) == []
    (later,) = notices(View.read(run), Notify(), queued=status.time)
    assert later.key == notice.key
    assert later.title.startswith("tiny has started after waiting for 13:00:0")
    assert keys(run, Notify(waiting_hours=14), status.time) == []


def test_one_process_reports_an_event(run: RunDir) -> None:
    write_state(run, "failed")
    (notice,) = notices(View.read(run), Notify())
    assert [claim(run, notice) for _ in range(3)] == [True, False, False]


def test_a_link_in_a_copy_of_a_run_leads_nowhere(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    run.notifications.symlink_to(tmp_path / "elsewhere")
    write_state(run, "failed")
    (notice,) = notices(View.read(run), Notify())
    assert not claim(run, notice)
    assert [*(tmp_path / "elsewhere").iterdir()] == []


def test_a_command_reports_what_nobody_has(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this shell has the address; and never with a program of the run."""
    started: list[list[str]] = []
    monkeypatch.setattr(module, "detach", lambda command, *_, **__: started.append(command))
    write_plan(run, notify=("failed",), python="/bin/false")
    run.config.write_text(run.config.read_text() + "\nnotify: {to: [MY_ADDRESS], command: rm x}\n")
    write_state(run, "failed")
    view = View.read(run)
    report(view)
    assert started == []
    monkeypatch.setenv("MY_ADDRESS", "json://localhost")
    report(replace(view, plan=replace(view.plan, notify=())))
    assert started == []
    report(view)
    assert [command[1:] for command in started] == [["-m", module.NOTIFY, str(run.path), "seen"]]
    assert started[0][0] != "/bin/false"
    (notice,) = notices(view, Notify())
    claim(run, notice)
    report(view)
    assert len(started) == 1


def test_a_list_of_runs_is_one_process(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ls` may see that a thousand have ended. What cannot be noted down is not reported again and again."""
    started: list[list[str]] = []
    monkeypatch.setattr(module, "detach", lambda command, *_, **__: started.append(command))
    monkeypatch.setenv("MY_ADDRESS", "json://localhost")
    others = [RunDir(run.path.with_name(f"20260102-10000{number}-bbbbb")) for number in range(3)]
    for one in others:
        shutil.copytree(run.path, one.path)
        write_plan(one, notify=("failed",))
        one.config.write_text(one.config.read_text() + "\nnotify: {to: [MY_ADDRESS]}\n")
        write_state(one, "failed")
    others[2].notifications.symlink_to(run.path)
    list(describe_each(others, lambda view, _: view.state, lambda *_: "failed"))
    assert [command[3:] for command in started] == [[str(others[0].path), "seen", str(others[1].path)]]
