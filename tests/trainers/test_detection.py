"""The worked example of object detection, docs/structures.md: lists of images, boxes that are flipped with them, a
metric over the whole set; on two ranks, and exact on resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.checkpoint_records import EvaluationMetrics
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.launch.commands.main import main
from tests.docs.blocks import blocks
from tests.tiny import drumbeat, latest

KILLED = """
import os, signal
from pathlib import Path
from my_lab.boxes import Detection

class Killed(Detection):
    calls = 0

    def losses(self, outputs, targets):
        self.calls += 1
        if self.calls == 14 and os.environ["RANK"] == "1" and not Path(FOLDER, "killed").exists():
            Path(FOLDER, "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(outputs, targets)
"""
"""In the sixth step: two micro-batches in each, and two in the pass before the first."""


def lab(folder: Path) -> Path:
    """The files of the page, in a folder."""
    for block in blocks(ROOT / "docs" / "structures.md"):
        if block.title in ("my_lab/boxes.py", "boxes.yaml"):
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text)
    (folder / "my_lab" / "killed.py").write_text(KILLED.replace("FOLDER", repr(str(folder))))
    return folder


def trained(folder: Path, *changes: str) -> tuple[RunDir, Result]:
    """A run of ten steps on two ranks."""
    drumbeat(lab(folder), "boxes.yaml", "--procs", "2", "phases.train.epochs=0.5", "checkpoints.every_steps=3",
             *changes)
    run = latest(folder, "boxes")
    return run, Result.require(run.result)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_programs")
def test_a_killed_run_has_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    _, straight = trained(tmp_path / "straight")
    run, resumed = trained(tmp_path / "resumed", "task._target_=my_lab.killed.Killed")
    assert run.newest_attempt().number == 1  # type: ignore[union-attr]
    assert resumed.weights_sha256 == straight.weights_sha256
    assert resumed.last == straight.last
    assert resumed.last["loss"] > 0
    for ranks in ("1", "2"):
        assert main(["evaluate", str(run.path), "--split", "validation", "--procs", ranks]) == 0
        found = EvaluationMetrics.require(run.path / "evaluation" / "validation-10" / "metrics.json")
        assert {name: resumed.last[name] for name in found.metrics} == found.metrics
        assert {"loss", "ap50"} <= found.metrics.keys()
