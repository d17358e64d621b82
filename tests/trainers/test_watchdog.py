"""A rank that hangs is ended, told where it stood, and the run goes on from its last checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from drumbeat.configs.patience import SHORTEST, gloo_seconds
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.launch.attempts.hang import find_hang
from drumbeat.trainers.watchdog import STEPS, Watchdog
from tests.tiny import drumbeat, latest, write_config


def test_patience_is_fixed_or_grows_with_the_steps(tmp_path: Path) -> None:
    attempt = RunDir(tmp_path).claim_attempt()
    watchdog = Watchdog(attempt, 0, SHORTEST, grows=True)
    watchdog.longest = SHORTEST / 10
    assert watchdog.timeout == STEPS * SHORTEST / 10
    watchdog.grows = False
    assert watchdog.timeout == SHORTEST
    watchdog.pet(3)
    assert attempt.stacks(0).read_text() == "step            3\ntimeout    1800.0 s, call            1\n"
    watchdog.close()
    assert attempt.stacks(0).read_text() == "step            3\ntimeout       inf s, call            1\n"
    assert find_hang(attempt) is None


def test_a_suspension_is_no_slow_step(tmp_path: Path) -> None:
    watchdog = Watchdog(RunDir(tmp_path).claim_attempt(), 0, SHORTEST, grows=True)
    watchdog.petted -= 2 * SHORTEST
    watchdog.pet(3)
    watchdog.close()
    assert watchdog.timeout == SHORTEST


def test_a_debugger_may_take_its_time(tmp_path: Path) -> None:
    attempt = RunDir(tmp_path).claim_attempt()
    watchdog = Watchdog(attempt, 0, math.inf)
    watchdog.pet(0)
    watchdog.close()
    assert attempt.stacks(0).read_text() == ""


def test_stacks_stand_behind_the_step_and_go_when_the_rank_comes_back(tmp_path: Path) -> None:
    attempt = RunDir(tmp_path).claim_attempt()
    watchdog = Watchdog(attempt, 0, SHORTEST)
    watchdog.pet(8)
    watchdog.file.write(b"Timeout (0:30:00)!\nThread 0x1 (most recent call first):\n  File \"x.py\", line 3 in f\n")
    found = find_hang(attempt)
    assert found is not None
    assert found.message.startswith("rank 0 hung at step 8 in f (x.py:3)")
    watchdog.armed = 0.0
    watchdog.pet(9)
    watchdog.close()
    assert attempt.stacks(0).read_text() == "step            9\ntimeout       inf s, call            2\n"


@pytest.fixture
def group() -> Iterator[dist.ProcessGroup]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    assert dist.group.WORLD is not None
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_collectives_wait_as_long_as_the_patience_of_the_watchdog_allows(tmp_path: Path,
                                                                         group: dist.ProcessGroup) -> None:
    backend = group._get_backend(torch.device("cpu"))
    watchdog = Watchdog(RunDir(tmp_path).claim_attempt(), 0, SHORTEST, grows=True)
    watchdog.pet(0)
    assert backend.options._timeout == timedelta(seconds=gloo_seconds(SHORTEST))
    watchdog.longest, watchdog.armed = 1000.0, 0.0
    watchdog.pet(1)
    watchdog.close()
    assert backend.options._timeout == timedelta(seconds=gloo_seconds(1000.0 * STEPS))


@pytest.mark.slow
@pytest.mark.parametrize(("task", "how"), [("Meeting", "hold"), ("Fuse", "backward")])
def test_a_rank_that_hangs_is_named_and_ended_and_the_run_goes_on(tmp_path: Path, task: str, how: str) -> None:
    """The other rank waits at a later line of the same function, as with NCCL; or in the backward pass, as this one."""
    done = drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "2", f"task._target_=tests.tiny.{task}",
                    f"task.folder={tmp_path}", "task.at=[30]", "task.rank=1", f"task.how={how}",
                    "watchdog.timeout_minutes=0.1", warm=False)  # a fork has the stack of those it is forked from
    run = latest(tmp_path)
    output = " ".join(done.stdout.split())
    assert "rank 1 hung at step 13 in hold (tiny.py:" in output, output
    assert "the other ranks waited for it" in output
    assert Result.require(run.result).steps == 42
    assert len(list(run.attempts.iterdir())) == 2
