"""The checkpoints of a run in a table and as JSON."""

from __future__ import annotations

import json

import pytest

from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.commands.main import main
from tests.launch.made import EIGHT
from tests.tiny import CONFIG


def test_checkpoints_with_eight_metrics_fit_80_columns(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has the monitored metric, and the JSON all of them."""
    write_text(run.config, CONFIG.replace("evaluation: {", "evaluation: {monitor: balanced_accuracy, mode: max, "))
    for step in (1_000_000, 990_000):
        folder = run.checkpoints / f"step-{step:08d}"
        folder.mkdir(parents=True)
        progress = Progress(step=step, last={"step": step, "phase": "head", **EIGHT})
        CheckpointState(progress=progress).write(folder / "state.json")
    assert main(["checkpoints", str(run.path)]) == 0
    header, newest, *rest = capsys.readouterr().out.splitlines()
    assert header.split() == ["step", "phase", "size", "age", "balanced_accuracy", "state"]
    assert newest.split() == ["1,000,000", "head", "0.0", "MB", "0", "min", "0.6100", "damaged"]
    assert rest[1:] == ["damaged      step 1,000,000: no manifest", "damaged      step 990,000: no manifest"]
    assert max(map(len, [header, newest, *rest])) <= 80
    assert main(["checkpoints", str(run.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["step"], one["metrics"], one["damage"]) for one in found] == [
        (1_000_000, EIGHT, "no manifest"), (990_000, EIGHT, "no manifest")]
