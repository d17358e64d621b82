"""One training step: the loss of mixed samples, by hand, whole and in micro-batches; and the pass before the first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from configs.layers import Layer
from configs.load import build_config
from data.loader import Batch
from trainers.stage import Forward, Stage
from trainers.tasks import Classification
from trainers.world import World

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
KEPT = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])


def stage(*, mix: bool, largest: int | None = None, optimizer: str = "SGD", **options: float) -> Stage:
    config = build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 5, "max_batch_per_device": largest, "model": {"_target_": "x"}, "precision": "fp32",
        "data": {"mix": {"_target_": "data.mixing.Mixup"} if mix else {}},
        "phases": {"only": {"epochs": 1, "optimizer": {
            "_target_": f"torch.optim.{optimizer}", "lr": 0.1, **options}}}})])
    torch.manual_seed(0)
    return Stage(config, 0, nn.Linear(3, 4), Classification(), ALONE, Forward(config, ALONE, nn.Identity()))


def batch(targets: Any) -> Batch:
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    return Batch(inputs, targets, torch.arange(5), torch.arange(5), torch.zeros(5, dtype=torch.bool))


OWN, PARTNER = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([3, 3, 1, 0, 2])
MIXED = {"own": OWN, "partner": PARTNER, "kept": KEPT}


def test_the_loss_of_mixed_targets_by_hand() -> None:
    one = stage(mix=True)
    outputs = one.model(batch(MIXED).inputs)
    logs = outputs.detach().log_softmax(1)
    expected = [-(kept * logs[row, own] + (1 - kept) * logs[row, partner]).item() for row, (own, partner, kept)
                in enumerate(zip(OWN.tolist(), PARTNER.tolist(), KEPT.tolist(), strict=True))]
    assert one._losses(outputs, MIXED).tolist() == pytest.approx(expected, rel=1e-6)
    assert one.step(batch(MIXED), 0)[0].item() == pytest.approx(sum(expected) / 5, rel=1e-6)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_sample_that_keeps_all_or_nothing_is_not_mixed(kept: int) -> None:
    """Then training is that on its own target, or on its partner's, bit for bit."""
    mixed, plain = stage(mix=True), stage(mix=False)
    mixed.step(batch(MIXED | {"kept": torch.full((5,), float(kept))}), 0)
    plain.step(batch(OWN if kept else PARTNER), 0)
    for one, other in zip(mixed.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("largest", [1, 2, 4])
def test_micro_batches_take_their_own_part_of_the_mixed_targets(largest: int) -> None:
    whole, cut = stage(mix=True), stage(mix=True, largest=largest)
    losses = [one.step(batch(MIXED), 0)[0].item() for one in (whole, cut)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for one, other in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("optimizer", "options"), [
    ("SGD", {}), ("SGD", {"momentum": 0.9}), ("AdamW", {}), ("Adam", {"amsgrad": True}), ("Adafactor", {})])
def test_the_start_foresees_the_optimizers_tensors(optimizer: str, options: dict[str, float]) -> None:
    """By name, shape and type as they are after a step; and it leaves the state as it was."""
    one, other = (stage(mix=False, optimizer=optimizer, **options) for _ in range(2))
    foreseen = one.start(batch(OWN), None)
    assert one.tensors() == {}
    for each in (one, other):
        each.step(batch(OWN), 0)
    taken = one.tensors()
    assert {name: (value.shape, value.dtype) for name, value in foreseen.items()} == {
        name: (value.shape, value.dtype) for name, value in taken.items()}
    assert all(torch.equal(value, other.tensors()[name]) for name, value in taken.items())
    assert all(torch.equal(value, other.model.state_dict()[name]) for name, value in one.model.state_dict().items())
