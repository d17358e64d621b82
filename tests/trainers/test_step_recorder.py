"""The step recorder: what it writes, when the disk refuses, and on several ranks."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

from drumbeat.configs.run.step_log import AttemptSteps, read_attempt
from drumbeat.trainers.gradient_digest import digest_row, fold
from drumbeat.trainers.step_recorder import AT_ONCE, StepRecorder
from drumbeat.trainers.world import World
from tests.ranks import on_ranks

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(3, 2, generator=generator), torch.randn(5000, generator=generator)]


def read(path: Path) -> AttemptSteps:
    found = read_attempt(path, 0)
    assert found is not None
    return found


@pytest.mark.parametrize("flush_every", [1, 7, 1000])
def test_each_step_has_its_loss_and_digest(tmp_path: Path, flush_every: int) -> None:
    recorder, steps = StepRecorder(ALONE, tmp_path / "steps.bin", 20), 2 * AT_ONCE + 5
    for step in range(steps):
        recorder.add(torch.tensor(step / 7), digest_row(gradients(step)), None)
        if step % flush_every == 0:
            recorder.flush()
    recorder.flush()
    log = read(tmp_path / "steps.bin")
    assert (log.first, log.last, log.ranks) == (21, 20 + steps, 1)
    for step in range(steps):
        found = log.step(21 + step)
        assert (found.loss, found.skipped, found.ranks) == (float(torch.tensor(step / 7)), False, ())
        assert found.digest == int(fold(digest_row(gradients(step))[None])) % 2**64


def test_shapes_may_change_between_steps(tmp_path: Path) -> None:
    """As they do between phases, and with sparse gradients."""
    recorder = StepRecorder(ALONE, tmp_path / "steps.bin", 0)
    rows = [digest_row(gradients(step)[:1 + step % 2]) for step in range(4)]
    for row in rows:
        recorder.add(torch.tensor(0.5), row, None)
    recorder.flush()
    log = read(tmp_path / "steps.bin")
    assert [log.step(step).digest for step in range(1, 5)] == [int(fold(row[None])) % 2**64 for row in rows]


def test_skipped_steps_are_marked(tmp_path: Path) -> None:
    recorder = StepRecorder(ALONE, tmp_path / "steps.bin", 0)
    for step, loss in enumerate([1.0, math.nan, 2.0]):
        recorder.add(torch.tensor(loss), digest_row(gradients(step)), None)
        if math.isnan(loss):
            recorder.skip()
    recorder.flush()
    recorder.add(torch.tensor(3.0), digest_row(gradients(3)), None)
    recorder.flush()
    log = read(tmp_path / "steps.bin")
    assert [log.step(step).skipped for step in range(1, 5)] == [False, True, False, False]
    assert [log.step(step).loss for step in (1, 3, 4)] == [1.0, 2.0, 3.0]
    assert math.isnan(log.step(2).loss)


def test_what_the_disk_refuses_is_written_later(tmp_path: Path) -> None:
    recorder = StepRecorder(ALONE, tmp_path / "gone" / "steps.bin", 0)
    recorder.add(torch.tensor(1.0), digest_row(gradients(0)), None)
    recorder.flush()
    assert not (tmp_path / "gone").exists()
    (tmp_path / "gone").mkdir()
    recorder.add(torch.tensor(2.0), digest_row(gradients(1)), None)
    recorder.flush()
    assert [read(tmp_path / "gone" / "steps.bin").step(step).loss for step in (1, 2)] == [1.0, 2.0]


def record(world: World, file: str, changed: str) -> None:
    """Records two steps; in the second, rank `changed` has another gradient of its own."""
    recorder = StepRecorder(world, Path(file), 0)
    for step in range(2):
        own = torch.tensor([world.rank, step + (step == 1 and str(world.rank) == changed)])
        recorder.add(torch.tensor(0.1 + world.rank), digest_row(gradients(step)), own)
    recorder.flush()


def test_several_ranks_write_one_log(tmp_path: Path) -> None:
    on_ranks(3, record, tmp_path / "steps.bin", "none")
    on_ranks(3, record, tmp_path / "other.bin", 1)
    log, other = read(tmp_path / "steps.bin"), read(tmp_path / "other.bin")
    parts = [struct.unpack("<f", struct.pack("<f", 0.1 + rank))[0] for rank in range(3)]
    assert (log.ranks, log.last) == (3, 2)
    assert log.step(1).loss == pytest.approx(sum(parts), rel=1e-15)
    assert len({*log.step(1).ranks, *log.step(2).ranks}) == 6
    assert log.step(1) == other.step(1)
    assert log.step(2)[:3] == other.step(2)[:3]
    assert [one == two for one, two in zip(log.step(2).ranks, other.step(2).ranks, strict=True)] == [True, False, True]
