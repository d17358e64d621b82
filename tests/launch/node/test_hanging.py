"""The launcher notices ranks that hang, and does not count the time in which it is stopped itself."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drumbeat.configs.patience import GRACE, PROGRESS
from drumbeat.launch.node.hanging import CHECK_SECONDS, HangingRanks


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time.monotonic returns."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def seconds_until_found(ranks: HangingRanks, clock: list[float], most: int = 60) -> float:
    before = clock[0]
    while not ranks.found() and clock[0] < before + most:
        clock[0] += CHECK_SECONDS
    return clock[0] - before


def test_a_rank_that_calls_no_more(tmp_path: Path, clock: list[float]) -> None:
    files = [tmp_path / "0", tmp_path / "1"]
    ranks = HangingRanks([*files, tmp_path / "not started"], checked=clock[0])
    for call in range(50):
        files[0].write_bytes(PROGRESS % (7, 9.0, 1) if call < 5 else PROGRESS % (7, 9.0, call))  # evaluates
        files[1].write_bytes(PROGRESS % (call, 9.0, call))
        clock[0] += 1.0
        assert not ranks.found()
    assert 9 + GRACE < seconds_until_found(ranks, clock) <= 9 + GRACE + 2 * CHECK_SECONDS


@pytest.mark.parametrize("text", [PROGRESS % (7, float("inf"), 3), b"", b"step 7\n", PROGRESS % (-1, 1e99, 3)],
                         ids=["off", "none yet", "another version", "large"])
def test_a_rank_without_a_timeout(tmp_path: Path, clock: list[float], text: bytes) -> None:
    (tmp_path / "0").write_bytes(text)
    ranks = HangingRanks([tmp_path / "0"], checked=clock[0])
    assert seconds_until_found(ranks, clock) == 60


def test_a_file_that_cannot_be_read_for_a_while(tmp_path: Path, clock: list[float]) -> None:
    file = tmp_path / "0"
    file.write_bytes(PROGRESS % (7, 9.0, 3))
    ranks = HangingRanks([file], checked=clock[0])
    clock[0] += 1.0
    ranks.found()
    file.rename(tmp_path / "gone")
    assert seconds_until_found(ranks, clock) == 60
    (tmp_path / "gone").rename(file)
    assert 9 + GRACE < seconds_until_found(ranks, clock) <= 9 + GRACE + 3 * CHECK_SECONDS


def test_the_time_of_a_disk_that_cannot_be_written_does_not_count(tmp_path: Path, clock: list[float],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranks may be healthy, and cannot show it."""
    (tmp_path / "0").write_bytes(PROGRESS % (7, 9.0, 3))
    ranks = HangingRanks([tmp_path / "0"], checked=clock[0])

    def refuses(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as disk:
        disk.setattr(os, "utime", refuses)
        assert seconds_until_found(ranks, clock) == 60
    assert 9 + GRACE < seconds_until_found(ranks, clock) <= 9 + GRACE + 2 * CHECK_SECONDS


@pytest.mark.slow
def test_the_time_of_a_suspension_does_not_count(tmp_path: Path) -> None:
    """A process is stopped for longer than the timeout. It finds the hang after it has run for as long itself."""
    (tmp_path / "0").write_bytes(PROGRESS % (7, 0.0, 3))
    watching = subprocess.Popen([sys.executable, "-c", f"""
import time
from pathlib import Path
from drumbeat.launch.node.hanging import HangingRanks
ranks = HangingRanks([Path({str(tmp_path / "0")!r})])
print("begins", flush=True)
while not ranks.found():
    time.sleep(0.1)
"""], stdout=subprocess.PIPE)
    assert watching.stdout and watching.stdout.readline() == b"begins\n"
    os.kill(watching.pid, signal.SIGSTOP)
    time.sleep(GRACE + 3)
    os.kill(watching.pid, signal.SIGCONT)
    resumed = time.monotonic()
    watching.communicate(timeout=60)
    assert time.monotonic() - resumed > GRACE - 2.5
