"""Where a run's time went, from files alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir, write_json
from drumbeat.launch.runs.goodput import goodput, text, useful

SECONDS = {"starting": 10.0, "waiting": 5.0, "training": 60.0, "evaluating": 10.0, "saving": 5.0}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    attempt = run.claim_attempt()
    write_json(attempt.launch, {"job": "a.0", "time": 1000.0})
    return run


def status(run: RunDir, state: str, time: float, **fields: object) -> None:
    write_json(run.status, {"state": state, "time": time, "seconds": SECONDS, **fields})


def test_nothing_is_known_before_the_first_step(run: RunDir) -> None:
    assert goodput(run) == {}


def test_what_is_beyond_the_checkpoints_time_was_lost(run: RunDir) -> None:
    write_json(run.attempt(0).verdict, {"outcome": "failed"})
    status(run, "finished", 1100.0)
    spent = goodput(run)
    assert spent == {**SECONDS, "queued": 0.0, "leaving": 0.0, "lost": 10.0}
    assert useful(spent) == 0.7
    assert text(spent) == ("training 60%, evaluating 10%, waiting for data 5%, saving 5%, starting 10%, "
                           "lost to failures 10%")


def test_the_time_between_jobs_is_nobodys_loss(run: RunDir) -> None:
    """A restart in place, by the same job, is no time between jobs."""
    write_json(run.attempt(0).verdict, {"next": "leave"})
    os.utime(run.attempt(0).verdict, (1040.0, 1040.0))
    write_json(run.claim_attempt().launch, {"job": "b.0", "time": 1060.0})
    write_json(run.claim_attempt().launch, {"job": "b.0", "time": 1070.0})
    status(run, "finished", 1120.0)
    spent = goodput(run)
    assert (spent["queued"], spent["lost"]) == (20.0, 10.0)
    assert useful(spent) == 0.7


def test_where_the_launcher_was_killed_the_time_until_somebody_resumed_is_lost(run: RunDir) -> None:
    write_json(run.attempt(0).begun, {"from": 0, "time": 1005.0})
    os.utime(run.attempt(0).begun, (1005.0, 1005.0))
    write_json(run.claim_attempt().launch, {"job": "b.0", "time": 1060.0})
    status(run, "finished", 1120.0)
    spent = goodput(run)
    assert (spent["queued"], spent["lost"]) == (0.0, 30.0)


def test_a_run_that_never_failed_has_lost_nothing(run: RunDir) -> None:
    write_json(run.attempt(0).verdict, {"outcome": "stopped"})
    status(run, "stopped", 1100.0)
    assert (goodput(run)["leaving"], goodput(run)["lost"]) == (10.0, 0.0)


def test_a_run_at_work_is_told_up_to_now(run: RunDir) -> None:
    write_json(run.attempt(0).verdict, {"outcome": "failed"})
    status(run, "running", 1090.0)
    assert goodput(run, now=1110.0)["lost"] == 20.0


def test_of_a_failed_run_only_what_was_saved_counts(run: RunDir) -> None:
    folder = run.checkpoints / "step-00000003"
    folder.mkdir(parents=True)
    write_json(folder / "state.json", {"progress": {"seconds": SECONDS | {"training": 40.0}}})
    status(run, "failed", 1100.0)
    spent = goodput(run)
    assert (spent["training"], spent["lost"]) == (40.0, 30.0)
