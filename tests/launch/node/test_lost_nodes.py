"""Nodes that SLURM loses, and remembering what a verdict blames. tests/slurm/test_requeue_and_handover.py loses one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.bad_nodes import remember, remembered
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, NodeDown, Verdict
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


def test_a_node_that_has_reported_is_not_lost(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slurmd does not answer for a moment."""
    monkeypatch.setenv("PATH", programs(
        tmp_path, sinfo=f"echo $* >{tmp_path}/asked; echo 'n1|mixed*'; echo 'n2|mixed*'"))
    attempt = attempt_on(run, "n1", "n2")
    NodeDown(host="n1", exit_code=1).write(attempt.node_down(0))
    assert with_lost_nodes(FAILED, attempt).bad_nodes == {"n2": LOST}
    assert "--nodes=n2 " in (tmp_path / "asked").read_text()
    NodeDown(host="n2", exit_code=1).write(attempt.node_down(1))
    assert with_lost_nodes(FAILED, attempt) == FAILED


def test_of_nodes_that_are_lost_all_at_once_none_is_blamed(run: RunDir, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="echo 'n1|down*'; echo 'n2|down*'"))
    verdict = with_lost_nodes(FAILED, attempt_on(run, "n1", "n2"))
    assert (verdict.message, verdict.bad_nodes) == (f"{FAILED.message}; SLURM has lost n1 and n2", {})
    assert with_lost_nodes(FAILED, attempt_on(run, "n1")).bad_nodes == {"n1": LOST}, "the only one"


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


def test_a_node_that_a_verdict_clears_is_forgotten_for_this_run(run: RunDir) -> None:
    run.path.mkdir(parents=True)
    blames = Verdict(outcome="failed", next="requeue", message="no", step=-1, bad_nodes={"n1": "a check failed"})
    remember_nodes(run, blames)
    assert remember(run.all_runs, "n1", "lost", "20260101-000000-other", time.time())
    remember_nodes(run, Verdict(outcome="failed", next="give up", message="no", step=-1, cleared="n1"))
    assert [(bad.node, bad.run) for bad in remembered(run.all_runs)] == [("n1", "20260101-000000-other")]
