"""The verdict is a function of the run's folder and of SLURM's state of the job."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.records import NodeDown, RankError, Saved, Verdict
from drumbeat.launch.attempts.verdict import verdict_of

REPORT = """\
drumbeat.trainers.worker FAILED
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 10221)
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-22_02:10:44
  host      : localhost
  rank      : {rank} (local_rank: 1)
  exitcode  : {code} (pid: 10222)  (SIGKILL)
  error_file: <N/A>
"""
"""As torchrun 2.14 writes it."""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def checkpoint(run: RunDir, step: int) -> None:
    folder = run.checkpoints / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").touch()


def error(attempt: Attempt, rank: int = 1, message: str = "boom", step: int = 7, kind: str = "ValueError") -> None:
    RankError(rank=rank, node="n2", type=kind, message=message, step=step).write(attempt.error(rank))


def fail(run: RunDir, restarts: int = 3, **exception: Any) -> Verdict:
    """The next attempt fails, with this exception if one is described."""
    attempt = run.claim_attempt()
    if exception:
        error(attempt, **exception)
    verdict = verdict_of(run, attempt, restarts=restarts)
    verdict.write(attempt.verdict)
    return verdict


def stop(run: RunDir, reason: str, *, slurm: str = "", saved: int | None = None, restarts: int = 3,
         queue: bool = True) -> Verdict:
    """The next attempt is asked to stop, and saves at step `saved`, if that is a number."""
    attempt = run.claim_attempt()
    attempt.request_stop(reason)
    if saved is not None:
        Saved(state="stopped", step=saved).write(attempt.saved)
    verdict = verdict_of(run, attempt, restarts=restarts, slurm=slurm, queue=queue)
    verdict.write(attempt.verdict)
    return verdict


@pytest.mark.parametrize(("reason", "slurm", "message"), [
    ("time limit", "terminated", "the job's time limit is near; resume it in another allocation, or with "
                                 "--slurm"),
    ("terminated", "preempted", "preempted; resume it in another allocation, or with --slurm"),
    ("stopped", "terminated", "as asked"),
])
def test_a_stop_in_an_allocation_of_the_user_requeues_nothing(run: RunDir, reason: str, slurm: str,
                                                               message: str) -> None:
    for _ in range(5):  # no limit on the count: whoever resumes it knows that the time was short
        verdict = stop(run, reason, slurm=slurm, saved=4, restarts=3, queue=False)
        assert (verdict.next, verdict.state, verdict.message) == ("leave", "stopped", f"stopped at step 4: {message}")


def test_finished(run: RunDir) -> None:
    attempt = run.claim_attempt()
    Saved(state="finished", step=42).write(attempt.saved)
    attempt.request_stop("preempted")  # too late
    verdict = verdict_of(run, attempt, restarts=3, slurm="preempted")
    assert (verdict.state, verdict.next) == ("finished", "leave")
    verdict.write(attempt.verdict)
    assert Verdict.read(attempt.verdict) == verdict


@pytest.mark.parametrize(("reason", "slurm", "message", "after", "state"), [
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
])
def test_a_stop_ends_the_run_or_requeues_it(run: RunDir, reason: str, slurm: str, message: str, after: str,
                                            state: str) -> None:
    verdict = stop(run, reason, slurm=slurm, saved=12)
    assert (verdict.message, verdict.next, verdict.state) == (f"stopped at step 12: {message}", after, state)


def test_a_stop_without_a_save_names_the_checkpoint_to_resume_from(run: RunDir) -> None:
    checkpoint(run, 9)
    verdict = stop(run, "terminated", slurm="preempted")
    assert verdict.message == "stopped without saving: preempted; the last checkpoint is at step 9"
    assert verdict.next == "requeue"


@pytest.mark.parametrize(("kind", "message", "meaning"), [
    ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", "ran out of GPU memory"),
    ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "ran out of memory"),
    ("RuntimeError", "DataLoader worker (pid 955) is killed by signal: Killed", "lost a loader worker"),
    ("SaveError", "the checkpoint cannot be written: No space left on device", "could not save a checkpoint"),
    ("ValueError", "boom", "failed"),
])
def test_what_an_exception_means(run: RunDir, kind: str, message: str, meaning: str) -> None:
    verdict = fail(run, kind=kind, message=message)
    assert verdict.message.startswith(f"rank 1 on n2 {meaning} at step 7: {kind}: {message}")


def test_a_rank_without_an_error_file_was_killed(run: RunDir) -> None:
    """torchrun may notice first that a rank failed because of it."""
    attempt = run.claim_attempt()
    error(attempt, rank=0, message="[gloo] Connection closed by peer [127.0.0.1]:1234", kind="RuntimeError")
    write_text(attempt.node_log(0), REPORT.format(rank=0, code=1))
    for rank in (0, 1):
        write_text(attempt.log(rank), "")
    verdict = verdict_of(run, attempt, restarts=3)
    assert verdict.message == "rank 1 was killed (SIGKILL; out of memory?) at step 7; there is no checkpoint"


ABORTED = """\
[rank1]:[E830 17:28:57.137971692 ProcessGroupNCCL.cpp:2068] [PG ID 0 PG GUID 0(default_pg) Rank 1] Process group \
watchdog thread terminated with exception: {why}
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
Exception raised from c10_cuda_check_implementation at /pytorch/c10/cuda/CUDAException.cpp:43 (most recent call first):
frame #0: c10::Error::Error(c10::SourceLocation, std::string) + 0x96 (0x7f378b96c446 in libc10.so)

terminate called after throwing an instance of 'c10::DistBackendError'
  what():  [PG ID 0 PG GUID 0(default_pg) Rank 1] Process group watchdog thread terminated with exception: {why}
Fatal Python error: Aborted
"""
"""The end of the log of a rank that torch's watchdog for NCCL has ended, as users report it."""


def test_an_error_that_only_torchs_watchdog_saw(run: RunDir) -> None:
    """It ends the process before Python can report the error; the other rank only loses its connection."""
    attempt = run.claim_attempt()
    error(attempt, 0, "NCCL error in: ../NCCLUtils.cpp:93, remote process exited or there was a network error", 7,
          "DistBackendError")
    write_text(attempt.log(1), ABORTED.format(why="CUDA error: device-side assert triggered"))
    write_text(attempt.stacks(1), "step            6\n")
    NodeDown(exit_code=1, host="n1").write(attempt.node_down(0))
    write_text(attempt.node_log(0), REPORT.format(rank=1, code=-signal.SIGABRT))
    verdict = verdict_of(run, attempt, restarts=3)
    assert verdict.message == (
        "rank 1 on n1 used an index out of range on its GPU at step 6: DistBackendError: CUDA error: device-side "
        "assert triggered; check for labels outside the model's classes; on the CPU (--gpus 0) the error names the "
        "line; there is no checkpoint")
    assert (verdict.rank, verdict.error) == (1, "DistBackendError at step 6 of rank 1")


def test_ranks_that_all_only_waited(run: RunDir) -> None:
    """Each rank only knows that others did not join. It does not count as the same failure again, at any step."""
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


def test_a_hang_is_named_before_what_follows_from_it(run: RunDir) -> None:
    attempt = run.claim_attempt()
    error(attempt, 0, "Connection closed by peer [127.0.0.1]:1234", 7, "RuntimeError")
    for rank, lines in enumerate((20, 10)):
        write_text(attempt.stacks(rank), f"step            7\nThread 0x1 (most recent call first):\n"
                                         f'  File "/home/me/net.py", line {lines} in forward\n')
    assert verdict_of(run, attempt, restarts=3).message == (
        "rank 1 hung at step 7 in forward (net.py:10); the other ranks waited for it; its stacks are in "
        "000/rank1.stacks; there is no checkpoint")


def test_an_exception(run: RunDir) -> None:
    checkpoint(run, 6)
    verdict = fail(run, message="boom\nand more of it")
    assert verdict.message == "rank 1 on n2 failed at step 7: ValueError: boom; the last checkpoint is at step 6"
    assert (verdict.next, verdict.state, verdict.rank) == ("restart", "running", 1)


def test_the_rank_that_failed_first_is_named(run: RunDir) -> None:
    """Ranks that only lost their connection to it are not, even if their clocks say that they were first."""
    attempt = run.claim_attempt()
    error(attempt, 0, "[gloo/transport/tcp/pair.cc:545] Read error [10.0.0.1]:32456: Connection reset by peer", 7,
          "RuntimeError")
    error(attempt, 3, "no such picture", 7)
    assert verdict_of(run, attempt, restarts=3).message == (
        "rank 3 on n2 failed at step 7: ValueError: no such picture; there is no checkpoint")


def test_a_killed_rank_is_named_from_torchruns_report(run: RunDir) -> None:
    attempt = run.claim_attempt()
    error(attempt, 0, "Connection closed by peer", 7, "RuntimeError")
    for node, (rank, code) in enumerate([(0, 1), (1, -signal.SIGKILL)]):
        NodeDown(exit_code=1, host=f"n{node + 1}").write(attempt.node_down(node))
        write_text(attempt.node_log(node), REPORT.format(rank=rank, code=code))
    verdict = verdict_of(run, attempt, restarts=3)
    assert verdict.message == "rank 1 on n2 was killed (SIGKILL; out of memory?) at step 7; there is no checkpoint"
    assert (verdict.rank, verdict.error) == (1, "")


def test_an_exception_takes_precedence_over_a_crash_at_exit(run: RunDir) -> None:
    attempt = run.claim_attempt()
    error(attempt, 1)
    NodeDown(exit_code=1, host="n1").write(attempt.node_down(0))
    write_text(attempt.node_log(0), REPORT.format(rank=1, code=-signal.SIGSEGV))
    assert verdict_of(run, attempt, restarts=3).message.startswith("rank 1 on n2 failed at step 7: ValueError: boom")


@pytest.mark.parametrize(("code", "message"), [
    (-signal.SIGSEGV, "was killed (SIGSEGV)"), (-35, "was killed (signal 35)"), (3, "ended with code 3"),
])
def test_torchrun_itself_failed(run: RunDir, code: int, message: str) -> None:
    attempt = run.claim_attempt()
    NodeDown(exit_code=None, host="n1").write(attempt.node_down(0))
    NodeDown(exit_code=code, host="n2").write(attempt.node_down(1))
    assert verdict_of(run, attempt, restarts=3).message == f"torchrun on n2 {message}; there is no checkpoint"


def test_ranks_that_left_no_result(run: RunDir) -> None:
    assert fail(run).message == "the ranks ended without a result; there is no checkpoint"


def test_given_up_after_a_number_of_failures_in_a_row(run: RunDir) -> None:
    checkpoint(run, 6)
    assert [fail(run, restarts=2).next for _ in range(3)] == ["restart", "restart", "give up"]
    assert fail(run, restarts=2).next == "restart", "whoever resumes it has a budget again"


def test_no_restart_at_all(run: RunDir) -> None:
    assert fail(run, restarts=0).next == "give up"


def test_a_newer_checkpoint_resets_the_restart_budget(run: RunDir) -> None:
    for step in range(5):
        checkpoint(run, step)
        assert [fail(run, restarts=2).next for _ in range(2)] == ["restart", "restart"]


def test_the_same_exception_at_the_same_step_of_the_same_rank_gives_up_at_once(run: RunDir) -> None:
    others: list[dict[str, Any]] = [{"rank": 1}, {"rank": 2}, {"step": 8}, {"kind": "KeyError"}]
    assert [fail(run, restarts=9, **other).next for other in others] == ["restart"] * 4
    verdict = fail(run, restarts=9, rank=1, message="the text may differ")
    assert (verdict.next, verdict.state) == ("give up", "failed")
    assert verdict.message.endswith("; given up: the same error again")


def test_the_same_exception_after_a_newer_checkpoint_is_not_the_same(run: RunDir) -> None:
    for step in range(3):
        checkpoint(run, step)
        assert fail(run, step=0).next == "restart"


def test_repeated_kills_use_up_the_whole_restart_budget(run: RunDir) -> None:
    assert [fail(run).next for _ in range(4)] == ["restart", "restart", "restart", "give up"]


def test_preemptions_cost_nothing(run: RunDir) -> None:
    assert {stop(run, "terminated", slurm="preempted").next for _ in range(9)} == {"requeue"}


def test_a_time_limit_too_short_for_progress_is_given_up(run: RunDir) -> None:
    """It would be requeued forever."""
    after = [stop(run, "time limit", slurm="preempted", saved=0, restarts=2) for _ in range(3)]
    assert [verdict.next for verdict in after] == ["requeue", "requeue", "give up"]
    assert after[-1].message == ("stopped at step 0: the job's time limit is near; "
                               "given up: 3 times in a row without a newer checkpoint")
    assert after[-1].state == "failed"


def test_a_copy_of_a_checkpoint_does_not_count(run: RunDir) -> None:
    checkpoint(run, 6)
    (run.checkpoints / "step-00000010.bak").mkdir()
    (run.checkpoints / "step-00000010.bak" / "manifest.json").touch()
    assert fail(run).step == 6


def test_the_budget_holds_across_requeues(run: RunDir) -> None:
    assert fail(run, restarts=2).next == "restart"
    assert stop(run, "time limit", slurm="preempted", saved=0, restarts=2).next == "requeue"
    assert fail(run, restarts=2).next == "give up"


def test_a_superseded_attempt(run: RunDir) -> None:
    attempt = run.claim_attempt()
    run.claim_attempt()
    verdict = verdict_of(run, attempt, restarts=3)
    assert (verdict.outcome, verdict.next) == ("superseded", "leave")


def test_an_attempt_without_a_verdict(run: RunDir) -> None:
    """All its launchers were killed: none was left to write one."""
    assert Verdict.read(run.claim_attempt().verdict) is None
    assert fail(run, restarts=1).next == "restart"


def test_a_stop_whose_save_failed_says_why(run: RunDir) -> None:
    attempt = run.claim_attempt()
    attempt.request_stop("stopped")
    error(attempt, kind="OSError", message="[Errno 28] No space left on device", step=9)
    assert verdict_of(run, attempt, restarts=3).message == (
        "stopped without saving: as asked; there is no checkpoint; "
        "rank 1 on n2 ran out of disk space at step 9: OSError: [Errno 28] No space left on device")
