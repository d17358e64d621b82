"""The environment and files that the processes of a backend inherit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from drumbeat.launch.backends.environment import environment, redirected_output
from tests.launch.tiny_plan import plan


def test_the_environment_is_as_planned_inside_and_as_before_outside(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "99")
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), environment(plan(tmp_path)):
        assert "SLURM_JOB_ID" not in os.environ
        assert os.environ["OMP_NUM_THREADS"] == "8"
        raise ZeroDivisionError
    assert dict(os.environ) == before


def test_programs_with_redirected_output_hold_no_file_of_this_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with redirected_output(log):
        subprocess.run(["sh", "-c", "echo printed; echo warned >&2; cat"], check=True)
    assert sorted(log.read_text().split()) == ["printed", "warned"]
