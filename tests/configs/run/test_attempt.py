"""The files of an attempt."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import RankError, StopRequest


def test_the_first_reason_to_stop_stands(tmp_path: Path) -> None:
    attempt = RunDir(tmp_path).claim_attempt()
    attempt.request_stop("stopped")
    attempt.request_stop("time limit")
    assert StopRequest.require(attempt.stop).reason == "stopped"


def test_of_requests_at_the_same_time_one_stands(tmp_path: Path) -> None:
    """The user's request to stop is not lost, whatever the launcher requests just then."""
    reasons = ["stopped", "time limit", "terminated", "idle GPU"]
    for number in range(10):
        attempt, together = RunDir(tmp_path / str(number)).claim_attempt(), Barrier(len(reasons))

        def request(reason: str, attempt: Attempt = attempt, together: Barrier = together) -> str:
            together.wait()
            attempt.request_stop(reason)
            return StopRequest.require(attempt.stop).reason

        with ThreadPoolExecutor(len(reasons)) as threads:
            assert len({*threads.map(request, reasons)}) == 1


def test_errors_of_ranks_come_in_the_order_they_happened(tmp_path: Path) -> None:
    attempt = RunDir(tmp_path).claim_attempt()
    for rank, moment in ((0, 2.0), (11, 1.0)):
        RankError(rank=rank, node="n1", type="ValueError", message="", step=0, time=moment).write(attempt.error(rank))
    assert [error.rank for error in attempt.errors()] == [11, 0]
