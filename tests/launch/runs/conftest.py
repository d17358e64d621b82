"""Runs to list."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, Result
from tests.launch.made import IDS
from tests.runs import write_heartbeat, write_job, write_plan, write_state
from tests.tiny import CONFIG


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
           debug_here: Callable[[RunDir], None]) -> list[RunDir]:
    """A finished run, a running one, one without a recent heartbeat, and one in the queue."""
    monkeypatch.chdir(tmp_path)
    found = []
    for name, number in zip(("tiny", "tiny", "a_name_that_is_long", "other"), IDS, strict=True):
        run = RunDir(tmp_path / "runs" / name / number)
        write_plan(run)
        write_job(run, id="17", host=socket.gethostname())
        found.append(run)
    for run, step, loss, ago, monitor, best in zip(
            found[:3], (1000, 600, 600), (0.4, 0.51234, float("nan")), (9e6, 0, 600),
            ("accuracy", "balanced_accuracy", "loss"), (0.875, 0.75, 1.25), strict=True):
        write_heartbeat(run, step=step, steps=1000, loss=loss, samples_per_second=1234.5, eta_seconds=3725.0, ago=ago,
                        monitor=monitor, best=best)
    write_state(found[0], "finished", ago=9e6)
    Result(steps=1000, samples_seen=0, overshoot=0, test={"loss": 0.25, "accuracy": 0.9}).write(found[0].result)
    write_state(found[1], "running")
    debug_here(found[1])
    write_job(found[2], "slurm", id="4710", host="login")
    write_state(found[2], "running", ago=700)
    write_state(found[3], "pending")
    write_job(found[3], "slurm", id="4711", host="login")
    return found


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose files say that it runs on this machine, but it has no processes."""
    run = RunDir(tmp_path / "runs" / "tiny" / "20260101-000000-abcde")
    write_plan(run)
    write_text(run.config, CONFIG)
    write_job(run, id="1", host=socket.gethostname())
    AttemptStart(job="local-1.0", address="n1", port=1, time=time.time() - 60).write(run.claim_attempt().launch)
    write_heartbeat(run, step=12)
    write_state(run, "running")
    return run
