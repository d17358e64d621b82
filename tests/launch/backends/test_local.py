"""Runs on this machine, and on another one whose folder is shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.find import find_run
from drumbeat.launch.runs.stop import cancel
from tests.launch.made import evidence
from tests.runs import write_heartbeat, write_job, write_state


def test_a_run_on_another_machine_is_running_while_its_heartbeat_is_recent(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_job(run, id="1", host="elsewhere")
    write_state(run, "running")
    assert evidence(run).startswith("on elsewhere, last heartbeat ")
    write_state(run, "running", ago=121)
    assert evidence(run) == ""
    write_heartbeat(run, ago=60)
    assert evidence(run).startswith("on elsewhere, last heartbeat ")


def test_cancelling_a_run_on_another_machine(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    write_job(run, id="1", host="elsewhere")
    with pytest.raises(RunError, match="the run is on another machine, elsewhere"):
        cancel(View.read(run))
