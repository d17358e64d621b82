"""The tests that `make test-python` runs with another version of Python, besides the fast ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drumbeat.configs.run.records import Result
from tests.tiny import drumbeat, latest, write_config


@pytest.mark.slow
def test_a_run_on_two_ranks_shows_no_warning_of_python(tmp_path: Path) -> None:
    """Not even where Python is told to show all that its own modules warn of: torchrun has threads when it forks the
    ranks, and so have ranks when they fork loader workers."""
    done = drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "2", "data.workers=1", "phases.head.epochs=0.5",
                    "phases.finetune=null", env=os.environ | {"PYTHONWARNINGS": "default::DeprecationWarning"})
    run = latest(tmp_path)
    assert Result.read(run.result)
    logs = [done.stdout, done.stderr, *(log.read_text() for log in sorted(run.path.rglob("*.log"))),
            *(log.read_text() for log in sorted(run.path.rglob("*_log.err")))]
    assert [line for text in logs for line in text.splitlines() if "DeprecationWarning" in line] == []
