"""Which checkpoints are complete and undamaged, and which one a name means."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.checkpoint_records import CheckpointState, FileDigest, Manifest, Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import (
    FORMAT,
    checkpoint_path,
    checkpoint_text,
    damage,
    find_checkpoint,
    newest_checkpoint,
    progress_at,
    saved_steps,
    written_format,
)

WEIGHTS = b"weights"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def save(run: RunDir, step: int, version: int = FORMAT) -> Path:
    """A complete checkpoint with one file."""
    path = checkpoint_path(run, step)
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(WEIGHTS)
    digest = FileDigest(bytes=len(WEIGHTS), sha256=hashlib.sha256(WEIGHTS).hexdigest())
    Manifest(format=version, step=step, attempt=0, files={"model.safetensors": digest}).write(path / "manifest.json")
    return path


def test_steps_are_numbers_of_eight_digits_or_more_the_newest_first(run: RunDir) -> None:
    for step in (9, 10, 123_456_789):
        save(run, step)
    for name in ("step-00000011.bak", "step-12", "quarantined-step-00000013"):
        (run.checkpoints / name).mkdir()
    assert saved_steps(run) == [123_456_789, 10, 9]
    assert checkpoint_path(run, 9).name == "step-00000009"


def test_a_checkpoint_without_a_manifest_is_incomplete(run: RunDir) -> None:
    assert (newest_checkpoint(run), checkpoint_text(run)) == (-1, "there is no checkpoint")
    save(run, 0)
    assert checkpoint_text(run) == "the last checkpoint is at step 0"
    (save(run, 7) / "manifest.json").unlink()
    assert newest_checkpoint(run) == 0
    assert damage(checkpoint_path(run, 7)) == "no manifest"


def test_each_damage_is_named(run: RunDir) -> None:
    path = save(run, 3)
    weights = path / "model.safetensors"
    assert damage(path) == ""
    weights.write_bytes(b"Weights")
    assert damage(path) == "the digest of model.safetensors differs"
    weights.write_bytes(b"weight")
    assert damage(path) == "model.safetensors has 6 bytes, not 7"
    weights.unlink()
    assert damage(path) == "model.safetensors is missing"
    (path / "manifest.json").write_text('{"format": 1, "step')
    assert damage(path).startswith("manifest.json cannot be read: it is not JSON")


def test_a_newer_format_is_not_called_damaged_files(run: RunDir) -> None:
    path = save(run, 3, version=FORMAT + 1)
    (path / "model.safetensors").unlink()
    assert written_format(path) == FORMAT + 1
    assert damage(path) == f"format {FORMAT + 1}, this version reads {FORMAT}"
    (path / "manifest.json").unlink()
    assert written_format(path) == FORMAT


def test_the_progress_at_a_checkpoint(run: RunDir) -> None:
    path = save(run, 3)
    assert progress_at(path) is None
    CheckpointState(progress=Progress(step=3, samples=36)).write(path / "state.json")
    assert progress_at(path) == Progress(step=3, samples=36)
    (path / "state.json").write_text("[")
    assert progress_at(path) is None


def test_finding_a_checkpoint(run: RunDir) -> None:
    with pytest.raises(RunError, match="there are no checkpoints yet"):
        find_checkpoint(run, None)
    paths = {step: save(run, step) for step in range(10)}
    (run.checkpoints / "last").symlink_to(paths[9].name)
    assert find_checkpoint(run, None) == find_checkpoint(run, "last") == paths[9]
    with pytest.raises(RunError, match=r"there is no checkpoint 'best' of a run without a validation set"):
        find_checkpoint(run, "best")
    (run.checkpoints / "best").symlink_to(paths[4].name)
    assert find_checkpoint(run, None) == find_checkpoint(run, "best") == paths[4]
    assert find_checkpoint(run, "7") == paths[7]


@pytest.mark.parametrize("which", ["10", "newest", "../plan.json", "step-00000003"])
def test_what_is_no_checkpoint_is_refused_with_those_there_are(run: RunDir, which: str) -> None:
    for step in range(9):
        save(run, step)
    with pytest.raises(RunError) as error:
        find_checkpoint(run, which)
    (fault,) = error.value.faults
    assert (fault.what, fault.given) == (f"there is no checkpoint '{which}'", f"--checkpoint {which}")
    assert fault.remedy == "Name best, last or a step: 8, 7, 6, 5, 4, 3, 2, 1, ...."
