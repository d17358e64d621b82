"""The gradients of a step: of mixed samples, by hand, whole and in micro-batches; of weighted losses, as torch has them
of the whole batch, at any world size."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from drumbeat.data.loader import Batch
from drumbeat.data.order import key, shard
from drumbeat.trainers.tasks import Classification
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.trainers.small_phase import ALONE, KEPT, MIXED, OWN, PARTNER, POINTS, batch, runner, take


@pytest.mark.parametrize("kept", [0, 1])
def test_a_sample_that_keeps_all_or_nothing_is_not_mixed(kept: int) -> None:
    """Then training is that on its own target, or on its partner's, bit for bit."""
    mixed, plain = runner(mix=True), runner(mix=False)
    take(mixed, batch(MIXED | {"kept": torch.full((5,), float(kept))}), 0)
    take(plain, batch(OWN if kept else PARTNER), 0)
    for one, other in zip(mixed.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)


class Draws(nn.Linear):
    """Draws with Python and numpy."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs * random.random() + float(np.random.rand()))


def test_a_step_repeats_what_python_and_numpy_draw() -> None:
    one = runner(model=lambda: Draws(3, 4))
    losses = [one.backward([batch(OWN)], step).item() for step in (3, 4, 3)]
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("largest", [1, 2, 4])
def test_micro_batches_take_their_own_part_of_the_mixed_targets(largest: int) -> None:
    whole, cut = runner(mix=True), runner(mix=True, largest=largest)
    losses = [take(one, batch(MIXED), 0)[0].item() for one in (whole, cut)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for one, other in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


WEIGHT = torch.tensor([1.0, 3.0, 0.5, 0.0])
CLASSES = torch.tensor([0, 1, 3, 2, 1, 0, 2])


def weighted_step(world: World, largest: int | None) -> tuple[float, list[Tensor]]:
    """This rank's part of the loss of a step on seven weighted samples, and the gradients that came of it."""
    one = runner(task=Classification(loss=nn.CrossEntropyLoss(weight=WEIGHT)), world=world, largest=largest,
                batch_size=7)
    mine = torch.tensor(list(shard(7, world.rank, world.size)))
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    loss, taken = take(one, Batch(POINTS[mine], CLASSES[mine], mine, mine, torch.zeros(len(mine), dtype=torch.bool)), 0)
    assert taken
    after = [parameter.detach() for parameter in one.model.parameters()]
    return float(loss), [(old - new) / 0.1 for old, new in zip(before, after, strict=True)]


def torchs_step() -> tuple[float, list[Tensor]]:
    """The same from torch's own mean over the whole batch."""
    model = runner().model
    loss = functional.cross_entropy(model(POINTS), CLASSES, weight=WEIGHT)
    return float(loss.detach()), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("largest", [None, 1, 3])
def test_a_weighted_loss_is_torchs_weighted_mean(largest: int | None) -> None:
    loss, gradients = weighted_step(ALONE, largest)
    expected, reference = torchs_step()
    assert loss == pytest.approx(expected, rel=1e-6)
    whole = functional.cross_entropy(runner().model(POINTS).detach(), CLASSES, weight=WEIGHT, reduction="sum")
    assert expected != pytest.approx(float(whole) / 7, rel=0.01)
    for one, other in zip(gradients, reference, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def rank(world: World, folder: str) -> None:
    torch.save([weighted_step(world, largest) for largest in (None, 1)], Path(folder, str(world.rank)))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_weighted_loss_is_that_of_the_whole_batch_on_any_number_of_ranks(tmp_path: Path, ranks: int) -> None:
    """Although their shards weigh differently, and one rank's micro-batch may weigh nothing."""
    on_ranks(ranks, rank, tmp_path)
    expected, reference = torchs_step()
    for steps in zip(*(torch.load(tmp_path / str(rank)) for rank in range(ranks)), strict=True):
        assert sum(loss for loss, _ in steps) == pytest.approx(expected, rel=1e-6)
        for _, gradients in steps:
            for one, other in zip(gradients, reference, strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_mixed_samples_weigh_what_both_their_classes_do() -> None:
    one = runner(mix=True, task=Classification(loss=nn.CrossEntropyLoss(weight=WEIGHT)))
    losses = one.gradients.loss.each(one.model(batch(MIXED).inputs), MIXED).detach()
    weights = KEPT * WEIGHT[OWN] + (1 - KEPT) * WEIGHT[PARTNER]
    assert take(one, batch(MIXED), 0)[0].item() == pytest.approx(float(losses.sum() / weights.sum()), rel=1e-6)


def test_a_batch_that_weighs_nothing_changes_nothing() -> None:
    one = runner(task=Classification(loss=nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 1.0, 1.0]))))
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    loss, taken = take(one, batch(torch.zeros(5, dtype=torch.int64)), 0)
    assert (loss.item(), taken) == (0.0, True)
    assert all(torch.equal(old, new) for old, new in zip(before, one.model.parameters(), strict=True))


def test_a_pass_is_seeded_as_by_torch() -> None:
    """By the phase, the step and the rank, for every generator of the CPU."""
    drawn: list[Tensor] = []
    one = runner()
    one.model.register_forward_pre_hook(lambda module, given: drawn.append(torch.rand(3)))
    one.backward([batch(OWN)], 7)
    torch.manual_seed(key(0, "step", 0, 7, 0))
    assert torch.equal(drawn[0], torch.rand(3))
