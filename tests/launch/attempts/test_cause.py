"""The cause of a failed attempt is a function of its folder."""

from __future__ import annotations

import signal

import pytest

from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import NodeDown
from drumbeat.launch.attempts.cause import cause
from tests.launch.attempts.failures import ABORTED, REPORT, error


@pytest.mark.parametrize(("kind", "message", "words"), [
    ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", "ran out of GPU memory"),
    ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "ran out of memory"),
    ("RuntimeError", "DataLoader worker (pid 955) is killed by signal: Killed", "lost a loader worker"),
    ("SaveError", "the checkpoint cannot be written: No space left on device", "could not save a checkpoint"),
    ("ValueError", "boom", "failed"),
])
def test_what_an_exception_means(run: RunDir, kind: str, message: str, words: str) -> None:
    attempt = run.claim_attempt()
    error(attempt, kind=kind, message=message)
    found = cause(attempt)
    assert found.message.startswith(f"rank 1 on n2 {words} at step 7: {kind}: {message}")


def test_the_rank_that_could_not_say_anything_was_killed(run: RunDir) -> None:
    """torchrun may notice first that a rank failed because of it."""
    attempt = run.claim_attempt()
    error(attempt, rank=0, message="[gloo] Connection closed by peer [127.0.0.1]:1234", kind="RuntimeError")
    write_text(attempt.node_log(0), REPORT.format(rank=0, code=1))
    for rank in (0, 1):
        write_text(attempt.log(rank), "")
    found = cause(attempt)
    assert found.message == "rank 1 was killed (SIGKILL; out of memory?) at step 7"


def test_an_error_that_only_torchs_watchdog_saw(run: RunDir) -> None:
    """It ends the process before Python hears of it; the other rank only loses its connection."""
    attempt = run.claim_attempt()
    error(attempt, 0, "NCCL error in: ../NCCLUtils.cpp:93, remote process exited or there was a network error", 7,
          "DistBackendError")
    write_text(attempt.log(1), ABORTED.format(why="CUDA error: device-side assert triggered"))
    write_text(attempt.stacks(1), "step            6\n")
    NodeDown(exit_code=1, host="n1").write(attempt.node_down(0))
    write_text(attempt.node_log(0), REPORT.format(rank=1, code=-signal.SIGABRT))
    found = cause(attempt)
    assert found.message == (
        "rank 1 on n1 used an index out of range on its GPU at step 6: DistBackendError: CUDA error: device-side "
        "assert triggered; check for labels outside the model's classes; on the CPU (--gpus 0) the error names the "
        "line")
    assert (found.rank, found.error) == (1, "DistBackendError at step 6 of rank 1")


def test_a_hang_is_named_before_what_follows_from_it(run: RunDir) -> None:
    attempt = run.claim_attempt()
    error(attempt, 0, "Connection closed by peer [127.0.0.1]:1234", 7, "RuntimeError")
    for rank, lines in enumerate((20, 10)):
        write_text(attempt.stacks(rank), f"step            7\nThread 0x1 (most recent call first):\n"
                                         f'  File "/home/me/net.py", line {lines} in forward\n')
    assert cause(attempt).message == (
        "rank 1 hung at step 7 in forward (net.py:10); the other ranks waited for it; its stacks are in "
        "000/rank1.stacks")


def test_the_rank_that_began_it_is_named(run: RunDir) -> None:
    """And not those that only saw it go, though their clocks may say that they were first."""
    attempt = run.claim_attempt()
    error(attempt, 0, "[gloo/transport/tcp/pair.cc:545] Read error [10.0.0.1]:32456: Connection reset by peer", 7,
          "RuntimeError")
    error(attempt, 3, "no such picture", 7)
    assert cause(attempt).message == (
        "rank 3 on n2 failed at step 7: ValueError: no such picture")


def test_a_killed_rank_is_named_from_torchruns_report(run: RunDir) -> None:
    attempt = run.claim_attempt()
    error(attempt, 0, "Connection closed by peer", 7, "RuntimeError")
    for node, (rank, code) in enumerate([(0, 1), (1, -signal.SIGKILL)]):
        NodeDown(exit_code=1, host=f"n{node + 1}").write(attempt.node_down(node))
        write_text(attempt.node_log(node), REPORT.format(rank=rank, code=code))
    found = cause(attempt)
    assert found.message == "rank 1 on n2 was killed (SIGKILL; out of memory?) at step 7"
    assert (found.rank, found.error) == (1, "")


def test_an_exception_counts_for_more_than_a_crash_on_the_way_out(run: RunDir) -> None:
    attempt = run.claim_attempt()
    error(attempt, 1)
    NodeDown(exit_code=1, host="n1").write(attempt.node_down(0))
    write_text(attempt.node_log(0), REPORT.format(rank=1, code=-signal.SIGSEGV))
    assert cause(attempt).message.startswith("rank 1 on n2 failed at step 7: ValueError: boom")


@pytest.mark.parametrize(("code", "words"), [
    (-signal.SIGSEGV, "was killed (SIGSEGV)"), (-35, "was killed (signal 35)"), (3, "ended with code 3"),
])
def test_torchrun_itself_failed(run: RunDir, code: int, words: str) -> None:
    attempt = run.claim_attempt()
    NodeDown(exit_code=None, host="n1").write(attempt.node_down(0))
    NodeDown(exit_code=code, host="n2").write(attempt.node_down(1))
    assert cause(attempt).message == f"torchrun on n2 {words}"
