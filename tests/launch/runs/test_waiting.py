"""Waiting for a run: when it is over, and what is shown of it meanwhile."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.runs import waiting
from drumbeat.launch.runs.waiting import ProgressLine, Wait, progress_text
from tests.runs import write_heartbeat, write_job, write_plan, write_state


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir.new(tmp_path / "runs", "tiny")
    write_plan(run)
    write_job(run, id="1", host="here")
    write_state(run, "running")
    write_heartbeat(run, step=3, steps=10, loss=0.5, eta_seconds=60.0, monitor="loss", validation={"loss": 0.25})
    return run


def test_a_run_that_records_its_end_is_over(run: RunDir) -> None:
    wait = Wait(run)
    assert not wait.look()[1]
    write_state(run, "finished")
    assert wait.look()[1]


def test_a_run_that_was_killed_is_over(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """It records nothing: its processes are looked for, from time to time."""
    write_state(run, "running", ago=1000.0)
    write_heartbeat(run, ago=1000.0)
    wait = Wait(run)
    assert not wait.look()[1]
    monkeypatch.setattr(waiting, "EVIDENCE_SECONDS", 0.0)
    view, over = wait.look()
    assert (view.state, over) == ("failed", True)


def test_the_progress_in_one_line(run: RunDir) -> None:
    text = progress_text(View.read(run)).replace("\xa0", " ")
    assert text == "tiny: running, step 3 of 10, train loss 0.5000, validation loss 0.2500, 1:00 left"


def test_a_log_gets_a_line_for_each_state_and_evaluation(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine()
    for step, loss in ((3, 0.25), (4, 0.25), (5, 0.125)):
        write_heartbeat(run, step=step, steps=10, monitor="loss", validation={"loss": loss})
        line.show(View.read(run))
    write_state(run, "finished")
    line.show(View.read(run))
    line.end()
    shown = capsys.readouterr().out.replace("\xa0", " ").splitlines()
    assert [text.partition(", validation")[0] for text in shown] == [
        "tiny: running, step 3 of 10", "tiny: running, step 5 of 10", "tiny: finished, step 5 of 10"]


def test_a_notebook_gets_one_line_that_is_redrawn(run: RunDir, capsys: pytest.CaptureFixture[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    line = ProgressLine()
    for step in (3, 3, 4):
        write_heartbeat(run, step=step, steps=10)
        line.show(View.read(run))
    line.end()
    assert capsys.readouterr().out == "\rtiny: running, step 3 of 10\rtiny: running, step 4 of 10\n"
