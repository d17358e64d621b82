"""The records of a replay survive their files."""

from __future__ import annotations

from pathlib import Path

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.replay_records import ReplayedStep, ReplayRequest


def test_they_are_read_as_they_were_written(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    request = ReplayRequest(step=7, debugs=True, rank=1, ranks=2)
    request.write(run.replay)
    step = ReplayedStep(phase="head", positions=(4, 5), indices=(90, 1), names=("a", "b"), gradients={"w": "ff"})
    step.write(run.claim_attempt().replayed(1))
    assert ReplayRequest.read(run.replay) == request
    assert ReplayedStep.read(run.attempt(0).replayed(1)) == step
    assert ReplayedStep.read(run.attempt(0).replayed(0)) is None
