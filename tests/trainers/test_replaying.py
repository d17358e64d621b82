"""A replay ends behind its step, which it records; a rank alone needs no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from drumbeat.configs.run.replay_records import ReplayedStep, ReplayRequest
from drumbeat.configs.run.step_log import StepLog
from drumbeat.data.order import Stream
from drumbeat.trainers.replaying import LoneRank, lone_rank, replaying
from drumbeat.trainers.tasks import Classification, Task
from tests.trainers.in_process import ALONE, new_run, train, trained
from tests.trainers.small_phase import OWN, batch, runner


class Together(Classification):
    """A loss of the whole batch."""

    def batch_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.losses(outputs, targets).mean()


def test_a_replay_saves_and_ends_behind_its_step_and_records_it(tmp_path: Path) -> None:
    whole, run = new_run(tmp_path / "whole"), new_run(tmp_path / "replay")
    train(whole)
    request = ReplayRequest(step=8)
    training, end = trained(run, lambda training, attempt: replaying(training, request, attempt))
    assert (end, training.progress.step, training.saver.saved_step) == ("stopped", 8, 8)
    logs = StepLog.read(run), StepLog.read(whole)
    assert [log.last for log in logs] == [8, 12]
    assert [logs[0].step(step) for step in range(1, 9)] == [logs[1].step(step) for step in range(1, 9)]
    found = ReplayedStep.require(run.attempt(0).replayed(0))
    assert (found.phase, found.positions) == ("all", (4, 5, 6, 7))  # the second phase begins with step 7
    assert list(found.indices) == Stream(12, 0, 1).indices(torch.arange(4, 8).numpy()).tolist()
    assert list(found.gradients) == ["weight", "bias"]
    assert len({*found.gradients.values()}) == 2


def test_a_rank_alone_reduces_and_gathers_its_own_values() -> None:
    world = lone_rank(ALONE, ReplayRequest(step=1, debugs=True, rank=2, ranks=3))
    assert isinstance(world, LoneRank)
    assert (world.rank, world.size, world.is_main, world.is_alone) == (2, 3, True, True)
    value = torch.tensor([4, 5])
    assert world.all_reduce(value).tolist() == world.broadcast(value).tolist() == [4, 5]
    assert [one.tolist() for one in (*world.all_gather(value), *world.gather(value))] == [[4, 5]] * 6
    assert world.share({"a": 1}) == {"a": 1}
    world.broadcast_model(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(("task", "largest"), [(None, "auto"), (Together(), None)])
def test_a_rank_alone_computes_its_part(task: Task | None, largest: Any) -> None:
    """Although it would agree with the others on the size of micro-batches, or gather their outputs."""
    world = lone_rank(ALONE, ReplayRequest(step=1, debugs=True, rank=1, ranks=3))
    one = runner(world=world, task=task, largest=largest)
    one.start([batch(OWN)], None)
    assert one.backward([batch(OWN)], 0).isfinite()
    assert all(parameter.grad is not None for parameter in one.trained)
