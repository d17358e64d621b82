"""The checkpoints of a run in a table and as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import time

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.checkpoint_records import CheckpointState, FileDigest, Manifest, Progress
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import FORMAT, checkpoint_path
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.checkpoints import checkpoints_text, facts
from tests.launch.made import EIGHT
from tests.tiny import CONFIG


def test_checkpoints_with_eight_metrics_fit_80_columns(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has the monitored metric, and the JSON all of them."""
    write_text(run.config, CONFIG.replace("evaluation: {", "evaluation: {monitor: balanced_accuracy, mode: max, "))
    for step in (1_000_000, 990_000):
        folder = run.checkpoints / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
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


def save(run: RunDir, step: int, weights: bytes) -> None:
    """A complete checkpoint of the second phase, evaluated at that very step."""
    folder = checkpoint_path(run, step)
    folder.mkdir(parents=True)
    CheckpointState(progress=Progress(step=step, phase=1, last={"step": step, "phase": "finetune", **EIGHT})).write(
        folder / "state.json")
    (folder / "model.safetensors").write_bytes(weights)
    files = {path.name: FileDigest(bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
             for path in folder.iterdir()}
    Manifest(format=FORMAT, step=step, attempt=0, files=files).write(folder / "manifest.json")


def test_what_is_known_of_each_checkpoint(run: RunDir) -> None:
    with pytest.raises(RunError, match="there are no checkpoints yet"):
        facts(run)
    for step in (6, 9):
        save(run, step, bytes(1_500_000))
    (run.checkpoints / "last").symlink_to("step-00000009")
    (run.checkpoints / "best").symlink_to("step-00000006")
    newest, older = facts(run)
    assert [(one["step"], one["phase"], one["last"], one["best"]) for one in (newest, older)] == [
        (9, "finetune", True, False), (6, "finetune", False, True)]
    assert newest["metrics"] == EIGHT
    assert newest["damage"] == ""
    assert newest["bytes"] == sum(path.stat().st_size for path in checkpoint_path(run, 9).iterdir())
    assert newest["folder"] == str(checkpoint_path(run, 9))


def test_what_the_newest_one_keeps_is_marked(run: RunDir) -> None:
    for step in (3, 6, 9):
        save(run, step, b"weights")
    write_text(checkpoint_path(run, 9) / "state.json", json.dumps(CheckpointState(progress=Progress(
        step=9, kept=(3,), best={"step": 6}, top=({"step": 6}, {"step": 3}))).as_json()))
    (run.checkpoints / "best").symlink_to("step-00000006")
    assert [(one["step"], one["kept"], one["best"]) for one in facts(run)] == [
        (9, [], False), (6, ["keep_best"], True), (3, ["keep_best", "keep_every_epochs"], False)]
    assert [line.partition(" ok, ")[2] for line in checkpoints_text(run).splitlines()[2:4]] == [
        "best", "keep_best, keep_every_epochs"]


def test_metrics_of_other_weights_are_not_shown(run: RunDir) -> None:
    """The newest evaluation may be older than the checkpoint."""
    save(run, 9, b"weights")
    progress = Progress(step=9, last={"step": 6, "phase": "head", **EIGHT})
    CheckpointState(progress=progress).write(checkpoint_path(run, 9) / "state.json")
    assert facts(run)[0]["metrics"] == {}


def test_damage_and_quarantine_are_listed_below_the_table(run: RunDir) -> None:
    save(run, 6, bytes(1_500_000))
    save(run, 9, b"weights")
    (checkpoint_path(run, 9) / "model.safetensors").write_bytes(b"Weights")
    (run.checkpoints / "best").symlink_to("step-00000006")
    quarantined = run.checkpoints / "quarantined-step-00000012"
    quarantined.mkdir()
    two_days_ago = time.time() - 48 * 3600
    os.utime(checkpoint_path(run, 6), (two_days_ago, two_days_ago))
    _, newest, older, *rest = checkpoints_text(run).splitlines()
    assert newest.split()[-1] == "damaged"
    assert " ".join(older.split()) == "6 finetune 1.5 MB 48 h 0.5000 ok, best"
    assert rest == ["damaged      step 9: the digest of model.safetensors differs", f"quarantined  {quarantined}"]
