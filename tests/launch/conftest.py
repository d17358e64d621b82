"""Runs to test commands with."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from tests.launch.made import FIRST, OTHER, SECOND
from tests.runs import write_job, write_plan


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/tiny with two runs, runs/other with one."""
    monkeypatch.chdir(tmp_path)
    for name, number in (("tiny", FIRST), ("tiny", SECOND), ("other", OTHER)):
        write_plan(RunDir(tmp_path / "runs" / name / number))
    (tmp_path / "runs" / "tiny" / "latest").symlink_to(SECOND)
    return tmp_path / "runs"


@pytest.fixture
def debug_here() -> Iterator[Callable[[RunDir], None]]:
    """Makes this process the one of a run with --debug: it holds the run's folder open until the end of the test."""
    with ExitStack() as stack:
        def hold(run: RunDir) -> None:
            write_job(run, "debug", host=socket.gethostname(), pid=os.getpid())
            handle = os.open(run.path, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, handle)

        yield hold
