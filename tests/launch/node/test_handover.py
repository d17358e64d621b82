"""What launchers that are started once more find out about the attempt before. The rest, on real clusters, is in
tests/slurm/test_requeue_and_handover.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, Verdict
from drumbeat.launch.node.handover import previous_verdict
from drumbeat.launch.slurm.job import SlurmJob
from tests.launch.tiny_plan import plan

LEAVE = Verdict(outcome="stopped", next="leave", message="stopped at step 1: preempted", step=1)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """With one attempt, of the first start of job 7 after one requeue."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    AttemptStart(job="7.1.0", address="n1", port=1).write(run.claim_attempt().launch)
    return run


@pytest.fixture
def looked(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verdict | None]:
    """What a node's launcher finds as a task of this start of this job."""

    def look(job: str, restarts: int, *, first: bool) -> Verdict | None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        return previous_verdict(run, plan(tmp_path, "launch.gpus=0"), SlurmJob.current(), first=first)

    return look


@pytest.mark.parametrize("first", [True, False])
def test_all_nodes_leave_again_where_the_run_had_left(run: RunDir, looked: Callable[..., Verdict | None],
                                                      first: bool) -> None:
    """One that waited for the first node would be ended by srun, a minute later, and the job would have failed."""
    LEAVE.write(run.attempt(0).verdict)
    assert looked("7", 1, first=first) == LEAVE
    assert looked("7", 2, first=first) is None, "requeued since"
    assert looked("8", 0, first=first) is None, "resumed in another job"


def test_the_first_node_determines_a_missing_verdict(run: RunDir, looked: Callable[..., Verdict | None]) -> None:
    assert looked("7", 1, first=False) is None
    assert not run.attempt(0).verdict.exists()
    found = looked("7", 1, first=True)
    assert found and found.next == "restart"
    assert Verdict.read(run.attempt(0).verdict) == found
