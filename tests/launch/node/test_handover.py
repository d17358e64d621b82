"""What restarted launchers find out about the previous attempt. tests/slurm/test_requeue_and_handover.py tests the rest
on real clusters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, Saved, Status, Verdict
from drumbeat.launch.attempts.verdict import IDLE_GPU
from drumbeat.launch.node import handover
from drumbeat.launch.node.handover import cancel_next_job, previous_verdict
from drumbeat.launch.slurm.job import SlurmJob
from tests.launch.tiny_plan import plan
from tests.runs import write_job

LEAVE = Verdict(outcome="stopped", next="leave", message="stopped at step 1: preempted", step=1)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """With one attempt, of the first start of job 7 after one requeue."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    AttemptStart(job="7.1.0", address="n1", port=1).write(run.claim_attempt().launch)
    return run


Previous: TypeAlias = Callable[..., Verdict | None]


@pytest.fixture
def previous(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Previous:
    """Runs the check of a node's launcher, as a task of one start of one job."""

    def check(job: str, restarts: int, *, first: bool) -> Verdict | None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        return previous_verdict(run, plan(tmp_path, "launch.gpus=0"), SlurmJob.current(), first=first)

    return check


@pytest.mark.parametrize("first", [True, False])
def test_all_nodes_leave_again_if_the_run_had_left(run: RunDir, previous: Previous,
                                                            first: bool) -> None:
    """If one waited for the first node, srun would end it after a minute, and the job would fail."""
    LEAVE.write(run.attempt(0).verdict)
    assert previous("7", 1, first=first) == LEAVE
    assert previous("7", 2, first=first) is None, "requeued since"
    assert previous("8", 0, first=first) is None, "resumed in another job"


def test_the_first_node_determines_a_missing_verdict(run: RunDir, previous: Previous) -> None:
    assert previous("7", 1, first=False) is None
    assert not run.attempt(0).verdict.exists()
    found = previous("7", 1, first=True)
    assert found and found.next == "restart"
    assert Verdict.read(run.attempt(0).verdict) == found


def test_a_run_that_was_stopped_for_good_is_not_started_again(run: RunDir, previous: Previous) -> None:
    """Its launchers were killed before they could say so."""
    run.attempt(0).request_stop(IDLE_GPU)
    Saved(state="stopped", step=3).write(run.attempt(0).saved)
    found = previous("7", 1, first=True)
    assert found and found.next == "leave"
    status = Status.require(run.status)
    assert (status.state, status.verdict) == (
        "stopped", "stopped at step 3: a GPU was idle for watchdog.idle_gpu_minutes")


def test_a_job_that_lost_the_run_leaves_the_next_job_of_another(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM may start the next job of a failed node while the old job's first launcher still reports."""
    cancelled: list[str] = []
    monkeypatch.setattr(handover, "run_slurm", lambda *words: cancelled.extend(words))
    write_job(run, "slurm", id="8;gpu", next_job="9;gpu")
    cancel_next_job(run, SlurmJob("7", 0))
    assert cancelled == []
    cancel_next_job(run, SlurmJob("8", 0))
    assert cancelled == ["scancel", "9"]
