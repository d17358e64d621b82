"""Which nodes a failed attempt blames: never for what the user or all nodes have done."""

from __future__ import annotations

from typing import Any

import pytest

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, FirstStep, NodeDown, NodeUp, RankError, Saved, Verdict
from drumbeat.launch.attempts.blame import lost
from drumbeat.launch.attempts.cause import cause
from drumbeat.launch.attempts.verdict import verdict_of
from tests.launch.attempts.failures import error

ECC = {"kind": "AcceleratorError", "message": "CUDA error: uncorrectable ECC error encountered"}


def attempt_on(run: RunDir, *nodes: str) -> Attempt:
    """The next attempt, on these nodes."""
    attempt = run.claim_attempt()
    AttemptStart(job="7.0.0", host=nodes[0], nodes=nodes, address=nodes[0], port=1).write(attempt.launch)
    return attempt


def down(attempt: Attempt, number: int, host: str, **fields: Any) -> None:
    NodeDown(exit_code=1, host=host, **fields).write(attempt.node_down(number))


def verdict(run: RunDir, attempt: Attempt, *, queue: bool = True, restarts: int = 3) -> Verdict:
    found = verdict_of(run, attempt, restarts=restarts, queue=queue)
    found.write(attempt.verdict)
    return found


@pytest.mark.parametrize("message", [
    "CUDA error: uncorrectable ECC error encountered", "CUDA error: GPU is lost",
    "NVRM: Xid (PCI:0000:c6:00): 79, GPU has fallen off the bus", "CUDA error: system not yet initialized",
    "CUDA error: uncorrectable NVLink error detected during the execution"])
def test_a_defect_of_the_hardware_blames_its_node(run: RunDir, message: str) -> None:
    attempt = attempt_on(run, "n1", "n2")
    error(attempt, 0, "Connection closed by peer [10.0.0.2]:1234", kind="RuntimeError")
    error(attempt, kind="AcceleratorError", message=message)
    (node, reason), = cause(attempt).bad_nodes.items()
    assert node == "n2"
    assert reason.startswith("rank 1 ")
    assert reason.endswith(f": AcceleratorError: {message}")


@pytest.mark.parametrize(("kind", "message"), [
    ("ValueError", "boom"),
    ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
    ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ("AcceleratorError", "CUDA error: device-side assert triggered"),
    ("AcceleratorError", "CUDA error: an illegal memory access was encountered"),
    ("RuntimeError", "No CUDA GPUs are available"),
    ("SaveError", "the checkpoint cannot be written: No space left on device"),
    ("RuntimeError", "DataLoader worker (pid 955) is killed by signal: Killed"),
    ("RuntimeError", "Connection closed by peer [10.0.0.2]:1234"),
])
def test_other_errors_blame_no_node(run: RunDir, kind: str, message: str) -> None:
    attempt = attempt_on(run, "n1", "n2")
    error(attempt, kind=kind, message=message)
    found = verdict(run, attempt)
    assert (found.bad_nodes, found.next) == ({}, "restart")


@pytest.mark.parametrize(("kind", "message", "code"), [
    ("ValueError", "bad shape", "if self.use_nvlink: raise ValueError('bad shape')"),
    ("RuntimeError", "bad shape", "if self.use_nvlink: raise RuntimeError('bad shape')"),
    ("KeyError", "'Xid'", "return row['Xid']"),
])
def test_words_in_the_users_code_blame_no_node(run: RunDir, kind: str, message: str, code: str) -> None:
    attempt = attempt_on(run, "n1", "n2")
    RankError(rank=1, node="n2", type=kind, message=message, step=7, traceback=(
        f'  File "model.py", line 7, in forward\n    {code}\n{kind}: {message}\n')).write(attempt.error(1))
    found = cause(attempt)
    assert (found.message, found.bad_nodes) == (f"rank 1 on n2 failed at step 7: {kind}: {message}", {})


def test_a_defect_on_all_nodes_is_not_one_of_a_node(run: RunDir) -> None:
    attempt = attempt_on(run, "n1", "n2")
    for rank, node in enumerate(("n1", "n2")):
        RankError(rank=rank, node=node, type=ECC["kind"], message=ECC["message"], step=7).write(attempt.error(rank))
    assert cause(attempt).bad_nodes == {}


def test_a_run_leaves_a_node_that_fails_twice(run: RunDir) -> None:
    """At first it restarts in place: most such errors do not come back, and another job may have to wait. Not "the same
    error again": that is for errors of the code."""
    for expected in ("restart", "requeue", "requeue", "give up"):
        attempt = attempt_on(run, "n1", "n2")
        error(attempt, **ECC)
        found = verdict(run, attempt)
        assert (found.next, list(found.bad_nodes)) == (expected, ["n2"])
        assert found.message.endswith("; queued again, without n2 if possible") == (expected == "requeue")
    assert found.message.endswith("; given up: 4 times in a row without a newer checkpoint")


def test_where_nothing_can_be_queued_it_restarts_in_place(run: RunDir) -> None:
    attempt = attempt_on(run, "n1", "n2")
    down(attempt, 1, "n2", message="the node check on n2 ended with code 3", check="failed")
    found = verdict(run, attempt, queue=False)
    assert (found.next, list(found.bad_nodes)) == ("restart", ["n2"])


def test_a_failed_check_has_the_run_queued_again_and_counts(run: RunDir) -> None:
    message = "the node check on n2 ended with code 3: GPU 1 is lost"
    for expected in ("requeue", "give up"):
        attempt = attempt_on(run, "n1", "n2")
        NodeDown(exit_code=None, host="n1").write(attempt.node_down(0))
        down(attempt, 1, "n2", message=message, check="failed")
        found = verdict(run, attempt, restarts=1)
        assert (found.outcome, found.next, found.bad_nodes) == ("failed", expected, {"n2": message})
        assert found.message.startswith(f"{message}; there is no checkpoint; ")
    assert found.state == "failed"


@pytest.mark.parametrize(("kinds", "blamed", "following"), [
    (["failed"], ["n1"], "requeue"),
    (["missing"], [], "give up"),
    (["failed", "failed"], [], "restart"),
    (["missing", "missing"], [], "give up"),
    (["missing", "failed"], [], "restart"),
    (["missing", ""], ["n1"], "requeue"),
    (["failed", "failed", ""], ["n1", "n2"], "requeue"),
], ids=lambda value: "-".join(value) if isinstance(value, list) else value)
def test_what_the_checks_find(run: RunDir, kinds: list[str], blamed: list[str], following: str) -> None:
    """Only the site's check, which has run, is about the only node. What is missing on all nodes stays missing."""
    attempt = attempt_on(run, *(f"n{number + 1}" for number in range(len(kinds))))
    for number, kind in enumerate(kinds):
        if kind:
            down(attempt, number, f"n{number + 1}", message=f"n{number + 1} lacks x", check=kind)
        else:
            NodeDown(exit_code=None, host=f"n{number + 1}").write(attempt.node_down(number))
    found = verdict(run, attempt)
    assert (sorted(found.bad_nodes), found.next) == (blamed, following)


@pytest.mark.parametrize(("kinds", "blamed"), [(["missing"], []), (["missing", "missing"], []),
                                              (["failed"], ["n1"])])
def test_a_node_that_has_not_reported_has_not_passed(run: RunDir, kinds: list[str], blamed: list[str]) -> None:
    """What the others lack may be missing there, too; and whether it is final is not known."""
    attempt = attempt_on(run, "n1", "n2", "n3")
    for number, kind in enumerate(kinds):
        down(attempt, number, f"n{number + 1}", message="lacks x", check=kind)
    found = cause(attempt)
    assert ([*found.bad_nodes], found.final) == (blamed, False)


def test_a_check_that_fails_on_one_node_after_another_blames_none(run: RunDir) -> None:
    """Of jobs with one node, which have no other to compare with."""
    found = []
    for node in ("n1", "n2"):
        attempt = attempt_on(run, node)
        down(attempt, 0, node, message=f"the node check on {node} ended with code 1", check="failed")
        found.append(verdict(run, attempt))
    assert [(one.next, [*one.bad_nodes], one.cleared) for one in found] == [
        ("requeue", ["n1"], ""), ("give up", [], "n1")]
    assert found[1].message == (
        "the node check on n2 ended with code 1; there is no checkpoint; given up: a check failed on n1, too, so it is "
        "rather the check, or a file server")


def test_a_check_that_fails_again_on_the_same_node_blames_it(run: RunDir) -> None:
    for following in ("requeue", "requeue"):
        attempt = attempt_on(run, "n1")
        down(attempt, 0, "n1", message="the node check on n1 ended with code 1", check="failed")
        found = verdict(run, attempt)
        assert (found.next, [*found.bad_nodes]) == (following, ["n1"])


def test_two_bad_nodes_among_good_ones_are_both_blamed(run: RunDir) -> None:
    for node in ("n2", "n3"):
        attempt = attempt_on(run, "n1", node)
        NodeDown(exit_code=None, host="n1").write(attempt.node_down(0))
        down(attempt, 1, node, message="no", check="failed")
        found = verdict(run, attempt)
        assert (found.next, [*found.bad_nodes]) == ("requeue", [node])


def test_many_nodes_are_not_all_named(run: RunDir) -> None:
    attempt = attempt_on(run, *(f"n{number}" for number in range(9)))
    NodeDown(exit_code=None, host="n8").write(attempt.node_down(8))
    for number in range(8):
        down(attempt, number, f"n{number}", message=f"n{number} lacks x", check="missing")
    found = cause(attempt)
    assert found.message == "n0 lacks x; n1 lacks x; n2 lacks x; and 5 more nodes"
    assert len(found.bad_nodes) == 8


@pytest.mark.parametrize(("errors", "blamed"), [
    ({1: None}, {"n2": "its launcher did not start"}),
    ({1: "No route to host"}, {}),  # of the two, it may be either
    ({1: "", 2: "No route to host"}, {"n3": "it did not reach n1: No route to host"}),
    ({1: "", 2: None}, {"n3": "its launcher did not start"}),
    ({1: "No route to host", 2: "No route to host"}, {}),  # it may be the first node
    ({1: "", 2: ""}, {}),
], ids=["no-launcher-of-two", "of-two", "of-three", "no-launcher-of-three", "all", "none"])
def test_nodes_that_do_not_reach_the_first(run: RunDir, errors: dict[int, str | None], blamed: dict[str, str]) -> None:
    attempt = attempt_on(run, *(f"n{number + 1}" for number in range(len(errors) + 1)))
    down(attempt, 0, "n1", message="n? does not reach n1:29500")
    for number, message in errors.items():
        if message is not None:
            NodeUp(host=f"n{number + 1}", connection_error=message).write(attempt.node_up(number))
    assert cause(attempt).bad_nodes == blamed


def test_a_run_that_has_ended_well_blames_nobody(run: RunDir) -> None:
    attempt = attempt_on(run, "n1", "n2")
    error(attempt, **ECC)
    FirstStep(resumed_from=0).write(attempt.first_step)
    Saved(state="finished", step=7).write(attempt.saved)
    assert verdict(run, attempt).bad_nodes == {}


def test_the_nodes_without_which_an_attempt_may_succeed(run: RunDir) -> None:
    """Those whose launchers are silent or do not connect, if the first one could listen; and what has failed again."""
    attempt = run.claim_attempt()
    AttemptStart(job="7", nodes=("n1", "n2", "n3", "n4"), address="n1", port=1).write(attempt.launch)
    assert lost(attempt, []) == {}
    assert lost(attempt, ["n4"]) == {3: "n4"}
    NodeUp(host="n2", connection_error="").write(attempt.node_up(1))
    NodeUp(host="n3", connection_error="no route to host").write(attempt.node_up(2))
    attempt.report(0, NodeDown(exit_code=1, host="n1", message="n3 does not reach n1"))
    NodeUp(host="n1", connection_error="Address already in use").write(attempt.node_up(0))
    assert lost(attempt, []) == {}
    NodeUp(host="n1", connection_error="").write(attempt.node_up(0))
    assert lost(attempt, []) == {2: "n3", 3: "n4"}
    attempt.report(1, NodeDown(exit_code=1, host="n2", message="GPU 1 is lost", check="failed"))
    assert lost(attempt, []) == {1: "n2", 3: "n4"}
