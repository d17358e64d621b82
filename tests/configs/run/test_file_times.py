"""When files of a run were written, by the clock of their file system."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drumbeat.configs.run.file_times import file_system_time, modified
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Heartbeat
from drumbeat.configs.run.view import View
from tests.runs import AS_ANOTHER, shared_folder, write_job, write_plan, write_state


def test_when_a_file_was_written(tmp_path: Path) -> None:
    assert modified(tmp_path / "none") is None
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", (1000, 1000))
    assert modified(tmp_path / "file") == 1000


def test_the_time_of_a_file_system(tmp_path: Path) -> None:
    before = file_system_time(tmp_path)
    (tmp_path / "file").touch()
    written = modified(tmp_path / "file")
    assert written and before <= written <= file_system_time(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_to() -> None:
    """Another user's, say."""
    with shared_folder() as folder:
        program = (f"from drumbeat.configs.run.file_times import *\n{AS_ANOTHER}\n"
                   f"print(file_system_time(Path({str(folder)!r})))")
        output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert abs(float(output) - time.time()) < 60


@pytest.mark.parametrize("skew", [-400.0, 400.0])
def test_a_clock_that_is_wrong_makes_no_run_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     skew: float) -> None:
    """The clock of the node that writes, or of the machine that reads."""
    run = RunDir(tmp_path / "runs" / "tiny" / "20260101-000000-abcde")
    write_plan(run)
    write_job(run, "slurm", id="7")
    write_state(run, "running")
    Heartbeat(time=time.time() + skew).write(run.claim_attempt().heartbeat)
    assert View.read(run).seconds_since_heartbeat() < 60
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + skew)
    assert View.read(run).seconds_since_heartbeat() < 60
