"""How a run's time is divided into kinds, from its files alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, FirstStep, Next, Outcome, State, Status, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.goodput import effective_ratio, goodput, text
from tests.runs import write_heartbeat, write_plan

SECONDS = {"importing": 0.0, "starting": 10.0, "waiting": 5.0, "training": 60.0, "evaluating": 10.0, "saving": 5.0}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    write_plan(run)
    start(run, "a.0", 1000.0)
    return run


def start(run: RunDir, job: str, time: float) -> None:
    """The next attempt, of this job."""
    AttemptStart(job=job, address="n1", port=1, time=time).write(run.claim_attempt().launch)


def ended(attempt: Attempt, outcome: Outcome, after: Next = "leave") -> None:
    Verdict(outcome=outcome, next=after, message="", step=-1).write(attempt.verdict)


def status(run: RunDir, state: State, time: float) -> None:
    write_heartbeat(run, seconds=SECONDS)
    Status(state=state, time=time).write(run.status)


def spent_by(run: RunDir, now: float | None = None) -> dict[str, float]:
    return goodput(View.read(run), now)


def test_nothing_is_known_before_the_first_step(run: RunDir) -> None:
    assert spent_by(run) == {}


def test_time_after_the_last_checkpoint_is_lost(run: RunDir) -> None:
    ended(run.attempt(0), "failed")
    status(run, "finished", 1100.0)
    spent = spent_by(run)
    assert spent == {**SECONDS, "queued": 0.0, "leaving": 0.0, "lost": 10.0}
    assert effective_ratio(spent) == 0.7
    assert text(spent) == ("training 60%, evaluating 10%, waiting for data 5%, saving 5%, starting 10%, "
                           "lost to failures 10%")


def test_a_run_that_measured_nothing_was_not_effective() -> None:
    assert effective_ratio({}) == 0.0


def test_the_time_between_jobs_is_not_lost(run: RunDir) -> None:
    """A restart in place, within the same job, does not count as time between jobs."""
    ended(run.attempt(0), "stopped")
    os.utime(run.attempt(0).verdict, (1040.0, 1040.0))
    start(run, "b.0", 1060.0)
    start(run, "b.0", 1070.0)
    status(run, "finished", 1120.0)
    spent = spent_by(run)
    assert (spent["queued"], spent["lost"]) == (20.0, 10.0)
    assert effective_ratio(spent) == 0.7


def test_time_until_the_resume_of_a_killed_launcher_is_lost(run: RunDir) -> None:
    FirstStep(resumed_from=0, time=1005.0).write(run.attempt(0).first_step)
    os.utime(run.attempt(0).first_step, (1005.0, 1005.0))
    start(run, "b.0", 1060.0)
    status(run, "finished", 1120.0)
    spent = spent_by(run)
    assert (spent["queued"], spent["lost"]) == (0.0, 30.0)


def test_a_run_that_never_failed_loses_no_time(run: RunDir) -> None:
    ended(run.attempt(0), "stopped")
    status(run, "stopped", 1100.0)
    assert (spent_by(run)["leaving"], spent_by(run)["lost"]) == (10.0, 0.0)


def test_the_time_of_a_running_run_ends_now(run: RunDir) -> None:
    ended(run.attempt(0), "failed")
    status(run, "running", 1090.0)
    assert spent_by(run, now=1110.0)["lost"] == 20.0


def test_a_failed_run_counts_only_the_time_up_to_its_checkpoint(run: RunDir) -> None:
    folder = run.checkpoints / "step-00000003"
    folder.mkdir(parents=True)
    CheckpointState(progress=Progress(seconds=SECONDS | {"training": 40.0})).write(folder / "state.json")
    status(run, "failed", 1100.0)
    spent = spent_by(run)
    assert (spent["training"], spent["lost"]) == (40.0, 30.0)
