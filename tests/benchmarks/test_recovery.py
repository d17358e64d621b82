"""The parts of a recovery, from the files of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.recovery import Recovery, stages
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, FirstStep


def test_the_parts_of_a_recovery_are_the_whole(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.claim_attempt()
    attempt = run.claim_attempt()
    AttemptStart(job="1.0.0", address="n1", port=1, time=1000.5).write(attempt.launch)
    attempt.versions.touch()
    os.utime(attempt.versions, (1002.0, 1002.0))
    FirstStep(time=1003.0, resumed_from=50).write(attempt.first_step)
    assert stages(run, 1, seconds=3.0) == {"until the next attempt": 0.5, "until its ranks have met": 1.5,
                                           "until its first step": 1.0}


def test_the_effective_ratio_of_a_fault_per_minute() -> None:
    assert Recovery(start=9.0, seconds=2.0, lost=1.0, stages={}).ratio == pytest.approx(0.95)
