"""Claiming and joining attempts. tests/launch/node/test_launcher.py tests how launchers use it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Topology
from drumbeat.configs.run.records import AttemptStart, Status, Verdict
from drumbeat.launch.node.claims import claim_attempt, claimed_attempt
from drumbeat.launch.node.members import Members
from drumbeat.launch.slurm.job import SlurmJob
from tests.launch.tiny_plan import plan

JOB = SlurmJob("7", 0)


def members(total: int, *numbers: int) -> Members:
    """These of a job's nodes, or all."""
    topology = Topology(nodes=total, ranks_per_node=2, device="cpu", cpus_per_rank=1)
    return Members(replace(plan(Path()), topology=topology), total, numbers)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run whose job 7 has three nodes."""
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0", "SLURM_STEP_ID": "0",
                        "SLURM_JOB_NODELIST": "n[1-3]", "SLURMD_NODENAME": "n1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
    (run := RunDir(tmp_path / "run")).path.mkdir()
    return run


def test_the_start_of_an_attempt_names_its_nodes(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt, asked_to_stop = claim_attempt(run, members(3), JOB)
    assert (attempt.number, asked_to_stop) == (0, False)
    start = AttemptStart.require(attempt.launch)
    assert (start.host, start.nodes, start.members, start.ranks) == ("n1", ("n1", "n2", "n3"), (0, 1, 2), 6)
    assert attempt.secret.exists()
    start = AttemptStart.require(claim_attempt(run, members(3, 1, 2), JOB)[0].launch)
    assert (start.nodes, start.members, start.ranks) == (("n2", "n3"), (1, 2), 4)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n[1,3]")
    assert AttemptStart.require(claim_attempt(run, members(2), JOB)[0].launch).nodes == ("n1", "n3")
    unknown = AttemptStart.require(claim_attempt(run, members(4), JOB)[0].launch)
    assert unknown.nodes == ("node 0", "node 1", "node 2", "node 3")


def test_the_reason_of_the_last_attempt_stays_in_the_status(run: RunDir) -> None:
    first, _ = claim_attempt(run, members(1), JOB)
    Verdict(outcome="failed", next="requeue", message="n2 is lost", step=-1).write(first.verdict)
    claim_attempt(run, members(1), JOB)
    status = Status.require(run.status)
    assert (status.state, status.attempt, status.verdict) == ("running", 1, "n2 is lost")


@pytest.mark.parametrize(("job", "previous", "stops"), [("7", "", True), ("8", "7", True), ("8", "", False)],
                         ids=["same-job", "next-job", "other-job"])
def test_a_stop_after_the_end_of_the_last_attempt(run: RunDir, monkeypatch: pytest.MonkeyPatch, job: str, previous: str,
                                                  stops: bool) -> None:
    claim_attempt(run, members(1), JOB)[0].request_stop("stopped")
    monkeypatch.setenv("SLURM_JOB_ID", job)
    assert claim_attempt(run, members(1), SlurmJob(job, 0, previous))[1] == stops


def test_other_nodes_join_only_newer_attempts_of_their_own_start(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    assert claimed_attempt(run, after=-1) is None
    attempt, _ = claim_attempt(run, members(2), JOB)
    assert claimed_attempt(run, after=-1) == attempt
    assert claimed_attempt(run, after=0) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert claimed_attempt(run, after=-1) is None
