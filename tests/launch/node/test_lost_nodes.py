"""Nodes that SLURM loses, and remembering what a verdict blames. tests/slurm/test_requeue_and_handover.py loses one."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.bad_nodes import remembered
from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.records import AttemptStart, Verdict
from drumbeat.launch.node.lost_nodes import LOST, remember_nodes, with_lost_nodes
from tests.launch.fake_slurm import programs

FAILED = Verdict(outcome="failed", next="restart", message="rank 0 lost the connection", step=3)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "runs" / "tiny" / "20260101-000000-abcde")


def attempt_on(run: RunDir, *nodes: str) -> Attempt:
    attempt = run.claim_attempt()
    AttemptStart(job="7.0.0", nodes=nodes, address="n1", port=1).write(attempt.launch)
    return attempt


def test_a_lost_node_is_named_and_blamed(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="echo 'n1|mixed'; echo 'n2|down*'; echo 'n3|down*'"))
    verdict = with_lost_nodes(FAILED, attempt_on(run, "n1", "n2"))
    assert (verdict.message, verdict.bad_nodes) == (f"{FAILED.message}; SLURM has lost n2", {"n2": LOST})
    assert with_lost_nodes(verdict, run.attempt(0)) == verdict


def test_nodes_that_are_up_are_not(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="echo 'n1|mixed'; echo 'n2|draining'"))
    assert with_lost_nodes(FAILED, attempt_on(run, "n1", "n2")) == FAILED
    assert with_lost_nodes(FAILED, run.claim_attempt()) == FAILED, "its nodes are unknown"


def test_what_a_verdict_blames_is_remembered_for_all_runs(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.path.mkdir(parents=True)
    verdict = Verdict(outcome="failed", next="requeue", message="no", step=-1, bad_nodes={"n2": "lost", "node 1": "x"})
    remember_nodes(run, verdict)
    assert [(bad.node, bad.reason, bad.run) for bad in remembered(run.path.parent.parent)] == [("n2", "lost", run.id)]
    assert capsys.readouterr().out.startswith("warning: node 1 cannot be remembered in ")
