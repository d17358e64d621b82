"""The verdict is a function of the run's folder, and of what SLURM says of the job."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import (
    MORE_NODES,
    AttemptStart,
    FirstStep,
    NodeDown,
    NodeUp,
    RankError,
    Saved,
    Verdict,
)
from drumbeat.launch.attempts.verdict import verdict_of
from tests.launch.attempts.failures import ABORTED, REPORT, error


def checkpoint(run: RunDir, step: int) -> None:
    folder = run.checkpoints / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").touch()


def fail(run: RunDir, restarts: int = 3, **what: Any) -> Verdict:
    """The next attempt fails, with an exception if `what` describes one."""
    attempt = run.claim_attempt()
    if what:
        error(attempt, **what)
    verdict = verdict_of(run, attempt, restarts=restarts)
    verdict.write(attempt.verdict)
    return verdict


def stop(run: RunDir, reason: str, *, slurm: str = "", saved: int | None = None, restarts: int = 3,
         queue: bool = True) -> Verdict:
    """The next attempt is asked to stop, and saves where `saved` says at which step."""
    attempt = run.claim_attempt()
    attempt.request_stop(reason)
    if saved is not None:
        Saved(state="stopped", step=saved).write(attempt.saved)
    verdict = verdict_of(run, attempt, restarts=restarts, slurm=slurm, queue=queue)
    verdict.write(attempt.verdict)
    return verdict


@pytest.mark.parametrize(("reason", "slurm", "words"), [
    ("time limit", "terminated", "the job's time limit is near; resume it in another allocation, or with "
                                 "--slurm"),
    ("terminated", "preempted", "preempted; resume it in another allocation, or with --slurm"),
    ("stopped", "terminated", "as asked"),
])
def test_in_an_allocation_of_the_users_nothing_is_queued_again(run: RunDir, reason: str, slurm: str,
                                                               words: str) -> None:
    for _ in range(5):  # however often: who resumes it knows that the time was short
        verdict = stop(run, reason, slurm=slurm, saved=4, restarts=3, queue=False)
        assert (verdict.next, verdict.state, verdict.message) == ("leave", "stopped", f"stopped at step 4: {words}")


def test_finished(run: RunDir) -> None:
    attempt = run.claim_attempt()
    Saved(state="finished", step=42).write(attempt.saved)
    attempt.request_stop("preempted")  # too late
    verdict = verdict_of(run, attempt, restarts=3, slurm="preempted")
    assert (verdict.state, verdict.next) == ("finished", "leave")
    verdict.write(attempt.verdict)
    assert Verdict.read(attempt.verdict) == verdict


def test_the_next_part_of_a_fork_is_another_attempt_that_counts_as_no_failure(run: RunDir) -> None:
    """Unless it is asked to stop at this very step."""
    checkpoint(run, 12)
    fail(run, restarts=1)
    attempt = run.claim_attempt()
    Saved(state="stopped", step=12, continues=True).write(attempt.saved)
    verdict = verdict_of(run, attempt, restarts=1)
    assert (verdict.outcome, verdict.next, verdict.state, verdict.step) == ("stopped", "restart", "running", 12)
    verdict.write(attempt.verdict)
    assert fail(run, restarts=1).next == "restart"
    attempt = run.claim_attempt()
    Saved(state="stopped", step=20, continues=True).write(attempt.saved)
    attempt.request_stop("stopped")
    assert verdict_of(run, attempt, restarts=1).message == "stopped at step 20: as asked"


@pytest.mark.parametrize(("reason", "slurm", "words", "after", "state"), [
    ("stopped", "", "as asked", "leave", "stopped"),
    ("stopped", "preempted", "as asked", "leave", "stopped"),
    ("terminated", "", "SIGTERM", "leave", "stopped"),
    ("terminated", "preempted", "preempted", "requeue", "preempted"),
    ("terminated", "requeued", "SLURM requeued the job", "requeue", "preempted"),
    ("terminated", "time limit", "the job's time limit is near", "requeue", "preempted"),
    ("terminated", "cancelled", "the job was cancelled", "leave", "cancelled"),
    ("time limit", "preempted", "the job's time limit is near", "requeue", "preempted"),
    ("time limit", "cancelled", "the job was cancelled", "leave", "cancelled"),
    ("time limit", "", "the job's time limit is near", "leave", "stopped"),
    ("idle GPU", "terminated", "a GPU was idle for watchdog.idle_gpu_minutes", "leave", "stopped"),
    ("idle GPU", "preempted", "a GPU was idle for watchdog.idle_gpu_minutes", "leave", "stopped"),
])
def test_a_stop_is_for_good_or_for_the_queue(run: RunDir, reason: str, slurm: str, words: str, after: str,
                                            state: str) -> None:
    verdict = stop(run, reason, slurm=slurm, saved=12)
    assert (verdict.message, verdict.next, verdict.state) == (f"stopped at step 12: {words}", after, state)


def test_a_stop_without_a_save_names_the_checkpoint_to_resume_from(run: RunDir) -> None:
    checkpoint(run, 9)
    verdict = stop(run, "terminated", slurm="preempted")
    assert verdict.message == "stopped without saving: preempted; the last checkpoint is at step 9"
    assert verdict.next == "requeue"


def test_ranks_that_all_only_waited(run: RunDir) -> None:
    """Nobody can say more than that others did not come; it is not the same failure again, whatever the step."""
    why = ("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=315, OpType=ALLREDUCE, NumelIn=6, "
           "NumelOut=6, Timeout(ms)=600000) ran for 600086 milliseconds before timing out.")
    for after in ("restart", "restart"):
        attempt = run.claim_attempt()
        for rank in (0, 1):
            write_text(attempt.log(rank), ABORTED.format(why=why))
        write_text(attempt.node_log(0), REPORT.format(rank=1, code=-signal.SIGABRT))
        NodeDown(exit_code=1, host="n1").write(attempt.node_down(0))
        verdict = verdict_of(run, attempt, restarts=3)
        verdict.write(attempt.verdict)
        assert verdict.next == after
        assert verdict.message == (
            f"rank 0 lost the connection to the other ranks at step 0: DistBackendError: {why[:-1]}; read their logs "
            "and check the network; there is no checkpoint")


def test_an_exception(run: RunDir) -> None:
    checkpoint(run, 6)
    verdict = fail(run, message="boom\nand more of it")
    assert verdict.message == "rank 1 on n2 failed at step 7: ValueError: boom; the last checkpoint is at step 6"
    assert (verdict.next, verdict.state, verdict.rank) == ("restart", "running", 1)


def test_nothing_is_known(run: RunDir) -> None:
    assert fail(run).message == "the ranks ended without a result; there is no checkpoint"


def test_given_up_after_so_many_failures_in_a_row(run: RunDir) -> None:
    checkpoint(run, 6)
    assert [fail(run, restarts=2).next for _ in range(3)] == ["restart", "restart", "give up"]
    assert fail(run, restarts=2).next == "restart", "whoever resumes it has a budget again"


def test_no_restart_at_all(run: RunDir) -> None:
    assert fail(run, restarts=0).next == "give up"


def test_a_newer_checkpoint_fills_the_budget_again(run: RunDir) -> None:
    for step in range(5):
        checkpoint(run, step)
        assert [fail(run, restarts=2).next for _ in range(2)] == ["restart", "restart"]


def test_the_same_exception_at_the_same_step_of_the_same_rank_is_enough(run: RunDir) -> None:
    others: list[dict[str, Any]] = [{"rank": 1}, {"rank": 2}, {"step": 8}, {"kind": "KeyError"}]
    assert [fail(run, restarts=9, **other).next for other in others] == ["restart"] * 4
    verdict = fail(run, restarts=9, rank=1, message="the text may differ")
    assert (verdict.next, verdict.state) == ("give up", "failed")
    assert verdict.message.endswith("; given up: the same error again")


def test_the_same_exception_after_a_newer_checkpoint_is_not_the_same(run: RunDir) -> None:
    for step in range(3):
        checkpoint(run, step)
        assert fail(run, step=0).next == "restart"


def test_a_rank_killed_again_and_again_is_given_as_many_chances_as_any(run: RunDir) -> None:
    assert [fail(run).next for _ in range(4)] == ["restart", "restart", "restart", "give up"]


def test_preemptions_cost_nothing(run: RunDir) -> None:
    assert {stop(run, "terminated", slurm="preempted").next for _ in range(9)} == {"requeue"}


def test_a_time_limit_too_short_to_get_ahead_is_given_up(run: RunDir) -> None:
    """It would be requeued forever."""
    after = [stop(run, "time limit", slurm="preempted", saved=0, restarts=2) for _ in range(3)]
    assert [verdict.next for verdict in after] == ["requeue", "requeue", "give up"]
    assert after[-1].message == ("stopped at step 0: the job's time limit is near; "
                               "given up: 3 times in a row without a newer checkpoint; give it more time_minutes in "
                               "the profile")
    assert after[-1].state == "failed"


@pytest.mark.parametrize(("started", "what"), [(False, "first step"), (True, "next checkpoint")])
def test_a_time_limit_that_came_too_early(run: RunDir, started: bool, what: str) -> None:
    attempt = run.claim_attempt()
    if started:
        FirstStep(resumed_from=0).write(attempt.first_step)
    attempt.request_stop("time limit")
    found = verdict_of(run, attempt, restarts=0, slurm="time limit")
    assert (found.next, found.message) == ("give up", (
        f"stopped without saving: the job's time limit came before its {what}; there is no checkpoint; given up: 1 "
        "times in a row without a newer checkpoint; give it more time_minutes in the profile"))


def test_a_hang_after_a_suspension_does_not_count(run: RunDir) -> None:
    for _ in range(3):
        attempt = run.claim_attempt()
        NodeDown(host="n1", exit_code=1).write(attempt.node_down(0))
        found = verdict_of(run, attempt, restarts=0, suspended=3600)
        found.write(attempt.verdict)
        assert (found.next, found.state, found.message) == ("restart", "running", (
            "the job was suspended for 1:00:00, after which a rank did not continue: torchrun on n1 ended with code 1; "
            "there is no checkpoint"))
    attempt = run.claim_attempt()
    RankError(rank=0, node="n1", type="ValueError", message="boom", step=7).write(attempt.error(0))
    assert verdict_of(run, attempt, restarts=0, suspended=3600).next == "give up", "an exception has another cause"


def test_a_copy_of_a_checkpoint_is_none(run: RunDir) -> None:
    checkpoint(run, 6)
    (run.checkpoints / "step-00000010.bak").mkdir()
    (run.checkpoints / "step-00000010.bak" / "manifest.json").touch()
    assert fail(run).step == 6


def test_the_budget_holds_across_requeues(run: RunDir) -> None:
    assert fail(run, restarts=2).next == "restart"
    assert stop(run, "time limit", slurm="preempted", saved=0, restarts=2).next == "requeue"
    assert fail(run, restarts=2).next == "give up"


def test_overtaken(run: RunDir) -> None:
    attempt = run.claim_attempt()
    run.claim_attempt()
    verdict = verdict_of(run, attempt, restarts=3)
    assert (verdict.outcome, verdict.next) == ("superseded", "leave")


def test_an_attempt_without_a_verdict(run: RunDir) -> None:
    """All its launchers were killed: no process was left to write a verdict."""
    assert Verdict.read(run.claim_attempt().verdict) is None
    assert fail(run, restarts=1).next == "restart"


def test_a_stop_whose_save_failed_says_why(run: RunDir) -> None:
    attempt = run.claim_attempt()
    attempt.request_stop("stopped")
    error(attempt, kind="OSError", message="[Errno 28] No space left on device", step=9)
    assert verdict_of(run, attempt, restarts=3).message == (
        "stopped without saving: as asked; there is no checkpoint; "
        "rank 1 on n2 ran out of disk space at step 9: OSError: [Errno 28] No space left on device")


def test_a_run_goes_on_without_nodes_that_failed_if_it_can_do_with_fewer(run: RunDir) -> None:
    """However often: that is no failure of the run."""
    for _ in range(3):
        attempt = run.claim_attempt()
        AttemptStart(job="7", nodes=("n1", "n2", "n3"), address="n1", port=1, on_slurm=True).write(attempt.launch)
        for place in range(3):
            NodeUp(host=f"n{place + 1}").write(attempt.node_up(place))
        attempt.report(1, NodeDown(exit_code=1, host="n2", message="GPU 1 is lost", check="failed"))
        for spare, following in ((0, "requeue"), (1, "restart"), (2, "restart")):
            verdict = verdict_of(run, attempt, restarts=1, spare=spare)
            assert (verdict.next, verdict.left_out) == (following, (1,) * (spare > 0))
        assert verdict.message == "GPU 1 is lost; there is no checkpoint; the run goes on without n2"
        verdict.write(attempt.verdict)


def test_a_run_that_is_ended_for_more_nodes_restarts_in_place(run: RunDir) -> None:
    verdict = stop(run, MORE_NODES, slurm="terminated", saved=4)
    assert (verdict.next, verdict.message) == ("restart", "stopped at step 4: more nodes can take part")
    assert stop(run, MORE_NODES, slurm="cancelled", saved=4).next == "leave"
