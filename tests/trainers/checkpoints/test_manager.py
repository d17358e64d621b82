"""Checkpoints: whole or not at all, verified when read, pruned without losing the best."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import damage
from drumbeat.trainers.checkpoints.manager import Checkpoints, SaveError
from drumbeat.trainers.checkpoints.state import (
    optimizer_numbers,
    optimizer_tensors,
    parameter_names,
    restore_optimizer,
    restore_scheduler,
    scheduler_numbers,
    weights_sha256,
)

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
    said: list[str] = []
    found = checkpoints.newest(said.append)
    assert found is not None
    assert found.progress.step == 1
    assert steps(checkpoints) == ["quarantined-step-00000002", "step-00000001"]
    assert "step-00000002 is corrupted" in said[0]


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
    assert damage(folder) == "format 99, this version reads 2"
    with pytest.raises(RunError, match=r"another version of Drumbeat(.|\n)*format 99; this version reads 2"):
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


def test_a_missing_best_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="weights of step 4 cannot be used: no manifest"):
        made(tmp_path).weights(4)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop, torch.optim.AdamW])
def test_an_optimizer_and_its_schedule_go_on_as_if_never_stopped(kind: type[torch.optim.Optimizer]) -> None:
    """Through JSON and plain tensors, convolution weights in channels_last order."""

    def build() -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.SequentialLR]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2)).to(memory_format=torch.channels_last)
        more = {"momentum": 0.9} if kind in (torch.optim.SGD, torch.optim.RMSprop) else {}
        optimizer = kind(model.parameters(), lr=0.1, **more)  # type: ignore[call-arg]
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=3)
        rest = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 4])
        return model, optimizer, torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, rest], milestones=[4])

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.SequentialLR,
             number: int) -> None:
        inputs = torch.rand(4, 2, 4, 4, generator=torch.Generator().manual_seed(number))
        model(inputs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()

    straight, resumed = build(), build()
    for number in range(10):
        step(*straight, number)
    first = build()
    for number in range(5):
        step(*first, number)
    model, optimizer, scheduler = first
    names = parameter_names(model)
    tensors = {name: value.clone() for name, value in optimizer_tensors(optimizer, names).items()}
    numbers = json.loads(json.dumps([optimizer_numbers(optimizer, names), scheduler_numbers(scheduler)]))
    resumed[0].load_state_dict(model.state_dict())
    restore_optimizer(resumed[1], parameter_names(resumed[0]), tensors, numbers[0])
    restore_scheduler(resumed[2], numbers[1])
    for number in range(5, 10):
        step(*resumed, number)
    assert weights_sha256(resumed[0].state_dict()) == weights_sha256(straight[0].state_dict())
    assert resumed[1].param_groups[0]["lr"] == straight[1].param_groups[0]["lr"]


@pytest.mark.parametrize("fused", [True, False])
def test_an_optimizer_keeps_its_own_way_to_compute(fused: bool) -> None:
    """It may go on from a state that was saved on a GPU, where it was fused, or go on there."""
    saved, resumed = (torch.optim.Adam([nn.Parameter(torch.ones(3))], lr=lr, fused=flag)
                      for lr, flag in ((0.5, fused), (0.1, not fused)))
    names = [{one.param_groups[0]["params"][0]: "weight"} for one in (saved, resumed)]
    for one in (saved, resumed):
        one.param_groups[0]["params"][0].grad = torch.ones(3)
    saved.step()
    restore_optimizer(resumed, names[1], optimizer_tensors(saved, names[0]), optimizer_numbers(saved, names[0]))
    assert (resumed.param_groups[0]["lr"], resumed.param_groups[0]["fused"]) == (0.5, not fused)
    resumed.step()
    assert optimizer_tensors(resumed, names[1])["weight/step"] == 2


def test_the_digest_sees_names_types_shapes_and_bytes() -> None:
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    assert weights_sha256(base) == weights_sha256(dict(reversed(base.items())))
    others = [{"a": torch.zeros(4), "c": torch.ones(2)}, {"a": torch.zeros(2, 2), "b": torch.ones(2)},
              {"a": torch.zeros(4), "b": torch.ones(2, dtype=torch.int32)},
              {"a": torch.zeros(4), "b": torch.tensor([1.0, 2.0])}]
    assert len({weights_sha256(other) for other in [base, *others]}) == 5
