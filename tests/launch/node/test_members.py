"""Which nodes take part in the attempts of a run that can do with fewer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan, Topology
from drumbeat.configs.run.records import MORE_NODES, AttemptStart, StopRequest, Verdict
from drumbeat.configs.site import Site
from drumbeat.launch.node.members import Members
from drumbeat.launch.slurm.job import SlurmJob
from tests.launch.node.stage import Stage
from tests.launch.tiny_plan import plan
from tests.processes import until


def members(total: int, least: int | None, *numbers: int) -> Members:
    topology = Topology(nodes=total, ranks_per_node=2, device="cpu", cpus_per_rank=1, min_nodes=least)
    return Members(replace(plan(Path()), topology=topology), total, numbers)


def nodes(stage: Stage, attempt: int) -> tuple[str, ...]:
    """The names of the nodes that take part in an attempt."""
    return AttemptStart.require(stage.run.attempt(attempt).launch).nodes


@pytest.mark.parametrize(("least", "have", "total"), [
    (None, 2, 3), (2, 2, 2), (1, 0, 3), (1, 5, 3), (None, 5, 3)],
    ids=["needs-all", "fewer", "unknown", "part-of-an-allocation", "part-of-an-allocation-needs-all"])
def test_the_nodes_that_a_job_has(least: int | None, have: int, total: int) -> None:
    found = Members.of(members(3, least).plan, SlurmJob("7", 0, nodes=have))
    assert (found.total, found.numbers) == (total, tuple(range(total)))
    assert found.attempt_plan.topology.world_size == 2 * total


def test_who_takes_part_next(tmp_path: Path) -> None:
    """Those that are lost leave, and those that can take part again are back, however the attempt has ended."""
    attempt = RunDir(tmp_path).claim_attempt()
    some = members(5, 2, 1, 3, 4)
    assert (some.spare, some.place(3), some.place(0)) == (1, 1, -1)
    assert some.left_out(attempt, ()) == (0, 2)
    attempt.report_ready(2)
    assert some.left_out(attempt, [2]) == (0, 4)
    some.follow(Verdict(outcome="failed", next="restart", message="", step=0, left_out=(0, 4)))
    assert some.numbers == (1, 2, 3)
    AttemptStart(job="7", members=(2, 4), address="n3", port=1).write(attempt.launch)
    some.join(attempt)
    assert some.numbers == (2, 4)


def test_a_disk_that_does_not_answer_on_a_node_that_is_left_out(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Its launcher stays, or SLURM would end those of the other nodes."""
    monkeypatch.setattr("drumbeat.launch.node.members.CHECK_SECONDS", 0.0)
    run = RunDir(tmp_path)
    attempt, some = run.claim_attempt(), members(2, 1, 0)
    attempt.verdict.mkdir()  # which cannot be read, and leaves nothing to check
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(some.wait, run, attempt, 1)
        until(attempt.node_ready(1).exists)
        attempt.verdict.rmdir()
        verdict = Verdict(outcome="stopped", next="restart", message="", step=0)
        verdict.write(attempt.verdict)
        assert waiting.result() == verdict
    assert (some.numbers, some.are_all) == ((0, 1), True)


@pytest.mark.parametrize(("first", "second", "kept"), [
    (MORE_NODES, "stopped", "stopped"), (MORE_NODES, "time limit", "time limit"), ("stopped", MORE_NODES, "stopped"),
    ("stopped", "time limit", "stopped")])
def test_a_stop_for_good_counts_more_than_one_for_more_nodes(tmp_path: Path, first: str, second: str,
                                                             kept: str) -> None:
    attempt: Attempt = RunDir(tmp_path).claim_attempt()
    attempt.request_stop(first)
    attempt.request_stop(second)
    assert StopRequest.require(attempt.stop).reason == kept


def test_the_run_goes_on_without_its_first_node_until_that_is_well_again(stage: Callable[..., Stage],
                                                                         tmp_path: Path) -> None:
    """The second one decides then."""
    here = stage(nodes=3, ranks_per_node=1, min_nodes=2, restarts=0)
    (tmp_path / "bad-127.0.0.1").touch()
    site = Site(node_check=f"[ ! -e {tmp_path}/bad-$SLURMD_NODENAME ] || {{ echo GPU 1 is lost; exit 3; }}")
    replace(JobPlan.require(here.run.plan), site=site).write(here.run.plan)
    here.launch(named=True)
    here.up(1, ranks=2)
    assert (nodes(here, 0), nodes(here, 1)) == (("127.0.0.1", "127.0.0.2", "127.0.0.3"), ("127.0.0.2", "127.0.0.3"))
    verdict = here.verdict(0)
    assert (verdict.next, verdict.left_out) == ("restart", (0,))
    assert verdict.message == ("the node check on 127.0.0.1 ended with code 3: GPU 1 is lost; there is no checkpoint; "
                               "the run goes on without 127.0.0.1")
    (tmp_path / "bad-127.0.0.1").unlink()
    here.up(2)
    assert here.verdict(1).message == "stopped at step 1: more nodes can take part"
    assert nodes(here, 2) == nodes(here, 0)
    here.finish()
    assert [output.splitlines()[-1] for output in here.end()] == ["leave"] * 3
    assert (here.state(), here.left()) == ("finished", [])


def test_the_run_goes_on_without_a_node_that_does_not_answer_until_it_does(stage: Callable[..., Stage]) -> None:
    here = stage(nodes=2, ranks_per_node=2, min_nodes=1, restarts=0, connect_seconds=1.0)
    here.launch(0, named=True)
    here.up(1, ranks=2)
    assert nodes(here, 1) == ("127.0.0.1",)
    assert "127.0.0.2 does not reach 127.0.0.1:" in here.verdict(0).message
    here.connect_seconds = 120.0
    here.launch(1, named=True)
    here.up(2)
    assert nodes(here, 2) == ("127.0.0.1", "127.0.0.2")
    here.finish()
    assert here.end() == ["leave", "leave"]


def test_a_run_that_would_have_too_few_nodes_does_not_go_on(stage: Callable[..., Stage]) -> None:
    here = stage(nodes=3, ranks_per_node=1, min_nodes=2, restarts=0, connect_seconds=1.0)
    here.launch(0, named=True)
    here.launchers[0].wait(timeout=120)
    assert here.end() == ["give up"]
    assert here.verdict(0).left_out == ()
