"""Checkpoints: whole or not at all, verified when read, pruned without losing the best."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import damage
from drumbeat.trainers.checkpoints.manager import Checkpoints, LostBestError, SaveError

STATE = {"optimizer": {}, "scheduler": {}}


def made(tmp_path: Path, keep: int = 2) -> Checkpoints:
    run = RunDir(tmp_path / "run")
    return Checkpoints(run, run.claim_attempt(), keep=keep)


def weights(value: float) -> dict[str, Tensor]:
    return {"a": torch.full((3,), value), "count": torch.tensor(7)}


def steps(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.glob("*step-*"))


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    checkpoints = made(tmp_path)
    progress = Progress(step=5, phase=1, phase_step=2, samples=60, best={"step": 3, "loss": 0.1})
    checkpoints.save(progress, weights(1.5), {"a/exp": torch.ones(3)}, STATE)
    checkpoints.close()
    found = checkpoints.newest()
    assert found is not None
    assert found.progress == progress
    assert found.model()["a"].tolist() == [1.5] * 3
    assert found.optimizer()["a/exp"].tolist() == [1.0] * 3
    assert (checkpoints.folder / "last").resolve() == found.path


def test_the_first_save_finds_its_memory_made_and_its_writer_started(tmp_path: Path) -> None:
    checkpoints = made(tmp_path)
    checkpoints.lay_out(weights(0.0), {"a/exp": torch.zeros(3)})
    assert checkpoints.staging is not None and checkpoints.writer is not None
    memory, writer = checkpoints.staging._map, checkpoints.writer.pid
    checkpoints.save(Progress(step=1), weights(1.5), {"a/exp": torch.ones(3)}, STATE)
    assert (checkpoints.staging._map, checkpoints.writer.pid) == (memory, writer)
    checkpoints.close()
    found = checkpoints.newest()
    assert found is not None
    assert found.optimizer()["a/exp"].tolist() == [1.0] * 3


def test_closing_gives_the_memory_back(tmp_path: Path) -> None:
    def memories() -> list[str]:
        files = [file.readlink().name for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
        return [file for file in files if file.startswith("memfd:checkpoint")]

    before, checkpoints = memories(), made(tmp_path)
    checkpoints.save(Progress(step=1), weights(1.5), {}, STATE)
    assert len(memories()) > len(before)
    checkpoints.close()
    assert memories() == before


def test_a_rank_that_fails_does_not_lose_the_save_in_progress(tmp_path: Path) -> None:
    """Nor waits for ever for a writer that hangs."""
    checkpoints = made(tmp_path)
    checkpoints.lay_out(weights(0.0), {})
    assert checkpoints.writer is not None
    os.kill(checkpoints.writer.pid, signal.SIGSTOP)
    checkpoints.save(Progress(step=1), weights(1.5), {}, STATE)
    checkpoints.wait_briefly(0.01)
    assert checkpoints.newest() is None
    os.kill(checkpoints.writer.pid, signal.SIGCONT)
    checkpoints.wait_briefly(60)
    assert checkpoints.newest() is not None
    checkpoints.close()


def test_a_rank_that_fails_hurries_the_writer(tmp_path: Path) -> None:
    """Which a writer that is stopped shows: the signal is pending."""
    checkpoints = made(tmp_path)
    checkpoints.save(Progress(step=1), weights(1.5), {}, STATE)
    checkpoints.wait()
    assert checkpoints.writer is not None
    os.kill(checkpoints.writer.pid, signal.SIGSTOP)
    checkpoints.save(Progress(step=2), weights(1.5), {}, STATE)
    checkpoints.wait_briefly(0.01)
    fields = dict(line.split(":\t") for line in Path(f"/proc/{checkpoints.writer.pid}/status").read_text().splitlines())
    assert int(fields["ShdPnd"], 16) >> (signal.SIGURG - 1) & 1
    os.kill(checkpoints.writer.pid, signal.SIGCONT)
    checkpoints.close()


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = made(tmp_path)
    best: dict[str, object] = {}
    for step in range(1, 7):
        best = {"step": 2, "loss": 0.0} if step >= 2 else {}
        checkpoints.save(Progress(step=step, best=best), weights(step), {}, STATE)
    checkpoints.close()
    assert steps(checkpoints) == ["step-00000002", "step-00000005", "step-00000006"]
    assert (checkpoints.folder / "best").resolve().name == "step-00000002"
    assert checkpoints.weights(2)["a"].tolist() == [2.0] * 3


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove", "no manifest", "half a manifest"])
def test_a_corrupted_checkpoint_is_quarantined_and_the_one_before_is_used(tmp_path: Path, harm: str) -> None:
    checkpoints = made(tmp_path)
    for step in (1, 2):
        checkpoints.save(Progress(step=step), weights(step), {}, STATE)
    checkpoints.close()
    model = checkpoints.folder / "step-00000002" / "model.safetensors"
    manifest = model.with_name("manifest.json")
    content = model.read_bytes()
    if harm == "truncate":
        model.write_bytes(content[:-1])
    elif harm == "flip":
        model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "remove":
        model.unlink()
    elif harm == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text()[:40])
    messages: list[str] = []
    found = checkpoints.newest(messages.append)
    assert found is not None
    assert found.progress.step == 1
    assert steps(checkpoints) == ["quarantined-step-00000002", "step-00000001"]
    assert "step-00000002 is corrupted" in messages[0]


def test_a_copy_beside_the_checkpoints_is_left_alone(tmp_path: Path) -> None:
    checkpoints = made(tmp_path)
    for name in ("step-00000001.bak", "step-00000099 (copy)", "step-x"):
        (checkpoints.folder / name).mkdir(parents=True)
    for step in (1, 2, 3):
        checkpoints.save(Progress(step=step), weights(step), {}, STATE)
    checkpoints.close()
    found = checkpoints.newest()
    assert found is not None
    assert found.progress.step == 3
    assert steps(checkpoints) == ["step-00000001.bak", "step-00000002", "step-00000003", "step-00000099 (copy)",
                                  "step-x"]


def test_checkpoints_of_a_newer_version_are_left_alone(tmp_path: Path) -> None:
    """Whose manifest may hold anything else."""
    checkpoints = made(tmp_path)
    folder = checkpoints.folder / "step-00000002"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"format": 99, "files": ["model"]}')
    assert damage(folder) == "format 99, this version reads 3"
    with pytest.raises(RunError, match=r"another version of Drumbeat(.|\n)*format 99; this version reads 3"):
        checkpoints.newest()
    assert steps(checkpoints) == ["step-00000002"]


def test_an_attempt_that_was_replaced_must_not_write(tmp_path: Path) -> None:
    checkpoints = made(tmp_path)
    checkpoints.run.claim_attempt()
    checkpoints.save(Progress(step=1), weights(1), {}, STATE)
    with pytest.raises(SaveError, match="attempt 1 has taken over"):
        checkpoints.close()
    assert checkpoints.newest() is None


def test_nothing_half_written_is_taken_for_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = made(tmp_path)
    (checkpoints.folder / ".step-00000009.1.tmp").mkdir(parents=True)
    (checkpoints.folder / "step-00000008").mkdir()
    assert checkpoints.newest(lambda _: None) is None
    assert damage(checkpoints.folder / "quarantined-step-00000008") == "no manifest"


def save_best(checkpoints: Checkpoints, best_at: int) -> None:
    """Checkpoints of steps 1, 2 and 3; from `best_at` on, that step is the best."""
    for step in (1, 2, 3):
        best = {"step": best_at} if step >= best_at else {}
        checkpoints.save(Progress(step=step, best=best), weights(step), {}, STATE)
    checkpoints.close()


def test_what_the_newest_ones_list_is_kept(tmp_path: Path) -> None:
    """The best ones, and those of every so many epochs; what is no longer listed is removed."""
    checkpoints = made(tmp_path, keep=1)
    for step in range(1, 8):
        checkpoints.save(Progress(step=step, best={"step": 1}, kept=(2,), top=(
            {"step": 1.0, "value": 0.1}, {"step": 4.0 if step < 7 else 6.0, "value": 0.2})), weights(step), {}, STATE)
        checkpoints.wait()
        if step == 6:
            assert steps(checkpoints) == [f"step-0000000{one}" for one in (1, 2, 4, 6)]
    checkpoints.close()
    assert steps(checkpoints) == [f"step-0000000{one}" for one in (1, 2, 6, 7)]


def test_corrupted_best_weights_are_trained_again_from_an_older_checkpoint(tmp_path: Path) -> None:
    """The newer ones stay: once the best ones are there again, they are used again."""
    checkpoints = made(tmp_path, keep=3)
    save_best(checkpoints, 2)
    (checkpoints.folder / "step-00000002" / "model.safetensors").write_bytes(b"")
    with pytest.raises(LostBestError, match=r"of step 2, are corrupted \(model.safetensors has 0 bytes, not"):
        checkpoints.weights(2)
    messages: list[str] = []
    found = checkpoints.newest(messages.append)
    assert found is not None
    assert found.progress.step == 1
    assert messages == ["the best weights of checkpoint step-00000003, of step 2, are missing; trying an older one"]
    checkpoints.save(Progress(step=2, best={"step": 2}), weights(2), {}, STATE)
    checkpoints.close()
    assert steps(checkpoints) == ["quarantined-step-00000002", *(f"step-0000000{step}" for step in (1, 2, 3))]
    again = checkpoints.newest(messages.append)
    assert again is not None
    assert again.progress.step == 3


def test_a_checkpoint_from_before_the_lost_best_weights_needs_no_best_ones(tmp_path: Path) -> None:
    """The best ones of its time have been pruned, and are surpassed once more."""
    checkpoints = made(tmp_path, keep=3)
    for step, best in ((1, 0), (2, 2), (3, 2)):
        checkpoints.save(Progress(step=step, best={"step": best}), weights(step), {}, STATE)
    checkpoints.close()
    (checkpoints.folder / "step-00000002" / "model.safetensors").write_bytes(b"")
    with pytest.raises(LostBestError):
        checkpoints.weights(2)
    found = checkpoints.newest(lambda _: None)
    assert found is not None
    assert found.progress.step == 1


def test_without_an_older_checkpoint_corrupted_best_weights_are_an_error_with_a_way_out(tmp_path: Path) -> None:
    """A run that does not need them continues."""
    checkpoints = made(tmp_path)
    save_best(checkpoints, 1)
    (checkpoints.folder / "step-00000001" / "model.safetensors").unlink()
    with pytest.raises(RunError, match="no older") as raised:
        checkpoints.weights(1)
    assert raised.value.faults[0].remedy.endswith("continue without them, from the last weights: drumbeat resume RUN")
    found = checkpoints.newest(lambda _: None)
    assert found is not None
    assert found.progress.step == 3
