"""The table of checkpoints, and the export of weights to one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.runs.checkpoints import checkpoints_text
from drumbeat.trainers.checkpoints.manager import Checkpoints
from drumbeat.trainers.commands.export import export
from tests.tiny import CONFIG


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    """Saved at steps 3 (the best), 5 and 8."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text(CONFIG)
    checkpoints = Checkpoints(run, run.claim_attempt(), keep=2)
    best = {"step": 3, "phase": "head", "loss": 0.25}
    for step in (3, 5, 8):
        last = best if step == 3 else {"step": 8, "phase": "head", "loss": 0.5}
        checkpoints.save(Progress(step=step, best=best, last=last), {"x": torch.full((3,), float(step))}, {}, {})
    checkpoints.close()
    yield run


def test_the_table_says_which_checkpoints_are_intact(run: RunDir) -> None:
    (run.checkpoints / "step-00000005" / "model.safetensors").write_bytes(b"")
    rows = [line.split() for line in checkpoints_text(run).splitlines()]
    assert rows[0] == ["step", "phase", "size", "age", "loss", "state"]
    assert [row[:2] for row in rows[1:4]] == [["8", "head"], ["5", "head"], ["3", "head"]]
    assert " ".join(rows[1]).endswith("0.5000 ok, last")
    assert rows[2][-1] == "damaged"
    assert " ".join(rows[3]).endswith("0.2500 ok, best")
    assert " ".join(rows[4]) == "damaged step 5: model.safetensors has 0 bytes, not 84"


def test_no_checkpoints_yet(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there are no checkpoints yet"):
        checkpoints_text(RunDir(tmp_path))


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
def test_plain_weights(run: RunDir, tmp_path: Path, name: str) -> None:
    for which, value in (("best", 3.0), ("last", 8.0)):
        assert export(run, tmp_path / name, which).startswith(f"wrote the {which} weights, step {value:.0f}, to ")
        found = load_file(tmp_path / name) if name.endswith("s") else torch.load(tmp_path / name)
        assert found["x"].tolist() == [value] * 3
    assert export(run, tmp_path / name).startswith("wrote the best weights, step 3, to ")
    assert export(run, tmp_path / name, "5").startswith("wrote the weights, step 5, to ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", name]


def test_what_cannot_be_exported(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the file w\.bin has no known suffix"):
        export(run, tmp_path / "w.bin", "best")
    with pytest.raises(RunError, match="the weights cannot be written: No such file or directory"):
        export(run, tmp_path / "no" / "w.pt", "best")
    with pytest.raises(RunError, match=r"(?s)there is no checkpoint '4'.*Name best, last or a step: 8, 5, 3"):
        export(run, tmp_path / "w.pt", "4")
    (run.checkpoints / "step-00000005" / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"the checkpoint is corrupted: model\.safetensors has 0 bytes"):
        export(run, tmp_path / "w.pt", "5")
    (run.checkpoints / "best").unlink()
    with pytest.raises(RunError, match="there is no checkpoint 'best' of a run without a validation set"):
        export(run, tmp_path / "w.pt", "best")
