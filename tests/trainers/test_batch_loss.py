"""The loss of a batch by hand: of mixed targets, with weights, and of a task of one's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from drumbeat.trainers.batch_loss import BatchLoss
from drumbeat.trainers.tasks import Classification, Task
from drumbeat.trainers.virtual_ranks import Division
from drumbeat.trainers.world import World

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
OUTPUTS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
OWN, PARTNER = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([3, 3, 1, 0, 2])
KEPT = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
MIXED = {"own": OWN, "partner": PARTNER, "kept": KEPT}
WEIGHT = torch.tensor([1.0, 2.0, 3.0, 4.0])


def loss(task: Task | None = None, *, mixes: bool = False) -> BatchLoss:
    return BatchLoss(task or Classification(), ALONE, Division.of(ALONE, None), batch_size=5, seed=0, number=0,
                     mixes=mixes)


def test_the_loss_of_mixed_targets_by_hand() -> None:
    logs = OUTPUTS.log_softmax(1)
    expected = [-(kept * logs[row, own] + (1 - kept) * logs[row, partner]).item() for row, (own, partner, kept)
                in enumerate(zip(OWN.tolist(), PARTNER.tolist(), KEPT.tolist(), strict=True))]
    found = loss(mixes=True).each(OUTPUTS, MIXED)
    assert isinstance(found, Tensor)
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_the_scale_is_one_over_the_samples_or_their_weights() -> None:
    weighted = Classification(loss=nn.CrossEntropyLoss(weight=WEIGHT))
    assert loss().scale([OWN]) == 1 / 5
    assert loss(weighted).scale([OWN]) == pytest.approx(1 / float(WEIGHT[OWN].sum()))
    both = KEPT * WEIGHT[OWN] + (1 - KEPT) * WEIGHT[PARTNER]
    assert loss(weighted, mixes=True).scale([MIXED]) == pytest.approx(1 / float(both.sum()))


def test_a_task_may_have_no_weights() -> None:
    """One that is not derived from ours, as docs/your_own_pieces.md allows."""
    class Own:
        losses = staticmethod(Classification().losses)

    own = loss(Own())  # type: ignore[arg-type]
    assert own.scale([OWN]) == 1 / 5
    assert torch.equal(own(OUTPUTS, OWN, 0.2, 0, alone=True), loss()(OUTPUTS, OWN, 0.2, 0, alone=True))
