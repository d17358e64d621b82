"""What cannot have the same bits at any number of ranks is refused before a run starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.commands.preflight import preflight
from tests.tiny import write_config

HERE = "tests.trainers.commands.test_virtual_rank_checks"


class Synchronized(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 2, 3), nn.SyncBatchNorm(2), nn.Flatten(), nn.Linear(72, 2))


class Sparse(nn.Module):
    """Looks up a vector for each image, whose gradient is sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, 2, sparse=True)

    def forward(self, pictures: Tensor) -> Tensor:
        found: Tensor = self.table((pictures.flatten(1).sum(1) > 0).long())
        return found


def message(folder: Path, *changed: str) -> str:
    config = load(write_config(folder), ["virtual_ranks=3", "phases.head.freeze=[]", *changed]).config
    with pytest.raises(PreflightError) as caught:
        preflight(config, world_size=2)
    return " ".join(str(caught.value).split())


@pytest.mark.parametrize(("changed", "expected"), [
    (["task._target_=tests.trainers.commands.test_batch_checks.Alike", "micro_batch_size=null"],
     "a loss of the whole batch needs the outputs of all virtual ranks at once where task"),
    ([f"model={{_target_: {HERE}.Synchronized}}"],
     "SyncBatchNorm computes the statistics of the real ranks, whose number may change where model "
     "given virtual_ranks: 3, 1"),
    ([f"model={{_target_: {HERE}.Sparse}}", "phases.finetune=null",
      "phases.head.optimizer={_target_: torch.optim.SGD, lr: 0.1}"], "table.weight has a sparse gradient"),
    (["virtual_ranks=10", "micro_batch_size=null"], "BatchNorm1d cannot be trained on one sample at a time"),
])
def test_it_is_refused(tmp_path: Path, changed: list[str], expected: str) -> None:
    assert expected in message(tmp_path, *changed)


def test_what_several_ranks_need_otherwise_is_not_asked_for(tmp_path: Path) -> None:
    """A parameter without a gradient, which DistributedDataParallel would refuse, is a note."""
    config = load(write_config(tmp_path), ["virtual_ranks=3", f"model={{_target_: {HERE}.Half}}",
                                           "phases.head.freeze=[]"]).config
    assert [note for note in preflight(config, world_size=2)["notes"] if "get no gradient" in note] == [
        "2 parameters get no gradient in phase head: unused.bias, unused.weight",
        "2 parameters get no gradient in phase finetune: unused.bias, unused.weight"]


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(64, 2), nn.Linear(64, 2)

    def forward(self, pictures: Tensor) -> Any:
        return self.used(torch.flatten(pictures, 1))
