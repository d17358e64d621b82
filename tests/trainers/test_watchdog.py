"""A rank that hangs is ended, told where it stood, and the run goes on from its last checkpoint."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import pytest

from configs.rundir import RunDir, read_json
from launch.verdict import hang
from tests.tiny import drumbeat, latest, write_config
from trainers.watchdog import GRACE, SHORTEST, STEPS, Watchdog

WAITING = """Timeout (0:00:05)!
Thread 0x00007f0e (most recent call first):
  File "/site-packages/torch/distributed/distributed_c10d.py", line 2824 in all_reduce
  File "/drumbeat/trainers/world.py", line 38 in sum
"""
HANGING = """Timeout (0:00:05)!
Thread 0x00007f0f (most recent call first):
  File "/lib/python3.11/threading.py", line 327 in wait
Thread 0x00007f0e (most recent call first):
  File "/site-packages/x/y.py", line 3 in z
  File "/home/me/my_loss.py", line 12 in losses
"""


def test_patience_is_long_or_as_the_config_says(tmp_path: Path) -> None:
    attempt = RunDir(tmp_path).claim_attempt()
    watchdog = Watchdog(attempt, 0, None)
    watchdog.longest = SHORTEST / 10
    assert watchdog.patience == STEPS * SHORTEST / 10
    watchdog.longest = 0.1
    assert watchdog.patience == SHORTEST
    watchdog.pet()
    assert SHORTEST < signal.getitimer(signal.ITIMER_REAL)[0] <= SHORTEST + GRACE
    watchdog.close()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert attempt.stacks(0).read_text() == ""
    assert hang(attempt) is None


def test_a_debugger_may_take_its_time(tmp_path: Path) -> None:
    watchdog = Watchdog(RunDir(tmp_path).claim_attempt(), 0, math.inf)
    watchdog.pet()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    watchdog.close()


def test_the_rank_that_waits_for_nobody_is_the_one_that_hung(tmp_path: Path) -> None:
    attempt = RunDir(tmp_path).claim_attempt()
    for rank, text in enumerate((WAITING, HANGING, WAITING)):
        attempt.stacks(rank).write_text(text)
    found = hang(attempt)
    assert found is not None
    assert (found.rank, found.words) == (
        1, "rank 1 hung in losses (my_loss.py:12); the others waited for it; its stacks are in 000/rank1.stacks")
    attempt.stacks(2).write_text(HANGING)
    assert "the ranks hung, and which of them first is not known; their stacks are in 000/rank*." in str(hang(attempt))


@pytest.mark.slow
def test_a_rank_that_hangs_is_ended_and_the_run_goes_on(tmp_path: Path) -> None:
    done = drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "2", "task._target_=tests.tiny.Fuse",
                    f"task.folder={tmp_path}", "task.at=[30]", "task.rank=1", "task.how=hold", "hang_minutes=0.1")
    run = latest(tmp_path)
    assert "rank 1 hung in losses (tiny.py:" in " ".join(done.stdout.split())
    assert "the others waited for it" in " ".join(done.stdout.split())
    assert read_json(run.result)["steps"] == 42
    assert len(list(run.attempts.iterdir())) == 2
