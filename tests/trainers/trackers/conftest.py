"""A run to send, and a process that is killed while it sends it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.tracker_records import Forwarded
from tests.trainers.trackers.made import KILLS


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "runs" / "tiny" / "20260101-100000-aaaaa")


@pytest.fixture
def sent_while_killed(run: RunDir) -> Callable[..., None]:
    """Sends the run to a tracker, with these environment variables: its processes were killed ten times."""
    def send(name: str, **variables: str) -> None:
        done = subprocess.run([sys.executable, "-m", "tests.trainers.trackers.made", str(run.path), name], cwd=ROOT,
                              env=os.environ | variables | {"PYTHONPATH": f"{ROOT}/src:{ROOT}"}, text=True,
                              capture_output=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith(("killed", "exit"))]
        assert lines == [*["killed"] * KILLS, "exit code 0"], done.stdout + done.stderr
        record = Forwarded.require(run.tracker(name))
        assert (record.state, record.step, record.error) == ("done", 60, "")

    return send
