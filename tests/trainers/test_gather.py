"""Losses of the whole batch: the same value and gradients at any number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from drumbeat.trainers.gather import gathered
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.tasks.task import WholeBatchLoss, losses_of
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.trainers.one_step import ALONE, assert_same, step, torchs

N = 7
PAIRS = tuple(torch.randn(N, 6, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))


class Towers(nn.Module):
    """Two embeddings of each sample, and a temperature, as in CLIP."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(6, 4)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        return {"one": functional.normalize(self.first(one), dim=1),
                "other": functional.normalize(self.second(other), dim=1), "scale": self.scale.exp()}


class Contrastive:
    """Each sample's two embeddings should be nearer to each other than to those of all others; a bias is learnt."""

    def __init__(self) -> None:
        self.bias = nn.Parameter(torch.zeros(4))

    def batch_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        similar = outputs["scale"] * (outputs["one"] + self.bias) @ outputs["other"].T
        return (functional.cross_entropy(similar, targets) + functional.cross_entropy(similar.T, targets)) / 2


TARGETS = torch.arange(N)


def towers() -> Towers:
    torch.manual_seed(0)
    return Towers()


def test_one_rank_has_torchs_loss() -> None:
    model, task = towers(), Contrastive()
    named = dict(model.named_parameters()) | {"task:bias": task.bias}
    expected = torchs(lambda: task.batch_loss(model(*PAIRS), TARGETS), named)
    assert_same([step(towers(), Contrastive(), PAIRS, TARGETS, N)], expected)


def rank(world: World, folder: str) -> None:
    torch.save(step(towers(), Contrastive(), PAIRS, TARGETS, N, world=world), Path(folder, str(world.rank)))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_ranks_has_the_same_loss(tmp_path: Path, ranks: int) -> None:
    """Although the ranks have shards of different sizes."""
    on_ranks(ranks, rank, tmp_path)
    model, task = towers(), Contrastive()
    named = dict(model.named_parameters()) | {"task:bias": task.bias}
    expected = torchs(lambda: task.batch_loss(model(*PAIRS), TARGETS), named)
    found = [torch.load(tmp_path / str(rank)) for rank in range(ranks)]
    assert_same(found, expected)
    for name in named:
        assert all(torch.equal(one[1][name], found[0][1][name]) for one in found)


def test_micro_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be computed in micro-batches"):
        step(towers(), Contrastive(), PAIRS, TARGETS, N, largest=3)


def test_an_evaluation_has_the_loss_of_each_chunk() -> None:
    task = Contrastive()
    assert isinstance(task, WholeBatchLoss)
    with torch.no_grad():
        outputs = towers()(*PAIRS)
    losses = losses_of(cast(Task, task), outputs, TARGETS, N)
    assert losses.detach().tolist() == [float(task.batch_loss(outputs, TARGETS).detach())] * N


@pytest.mark.parametrize(("values", "message"), [
    ([torch.ones(2), "text"], "needs tensors, and this is a str"),
    (torch.ones(3, 2), r"a row for each of the 2 samples, and this is float32 \[3, 2\]"),
])
def test_what_cannot_be_gathered(values: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        gathered(values, ALONE, [2])
