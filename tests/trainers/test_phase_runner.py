"""One training step: what the optimizer makes of the gradients, when it is skipped, and the pass before the first
step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.data.loader import Batch
from drumbeat.data.order import shard
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.several_optimizers import parts_of_step
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.trainers.small_phase import ALONE, OWN, batch, runner, take


def test_fp16_scales_the_loss_and_clips_what_is_not_scaled() -> None:
    """The step is that in fp32 but for rounding; one that overflows is skipped and halves the scale."""
    fine, plain = runner(precision="fp16"), runner()
    for one in (fine, plain):
        one.clip_norm = 0.1
        assert take(one, batch(OWN), 0)[1]
    for one, other in zip(fine.model.parameters(), plain.model.parameters(), strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    scaler = fine.gradients.scaler
    assert scaler is not None and plain.gradients.scaler is None and scaler.get_scale() == 2**16
    before = [one.detach().clone() for one in fine.model.parameters()]
    scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**120})
    assert not take(fine, batch(OWN), 1)[1]
    assert all(torch.equal(one, other) for one, other in zip(fine.model.parameters(), before, strict=True))
    assert fine.state()[1]["scaler"]["scale"] == 2**119


class Lion(torch.optim.Optimizer):
    """Somebody's own: its state is a tensor of another type, one of another shape, and a number."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            if not state:
                state |= {"mean": torch.zeros_like(parameter, dtype=torch.float64),
                          "rows": torch.zeros(len(parameter), device=parameter.device), "count": 0}
            state["mean"].lerp_(parameter.grad.double(), 0.1)
            state["count"] += 1
            parameter.sub_(state["mean"].sign(), alpha=self.param_groups[0]["lr"])


@pytest.mark.parametrize(("optimizer", "options"), [
    ("torch.optim.SGD", {}), ("torch.optim.SGD", {"momentum": 0.9, "fused": True}), ("torch.optim.AdamW", {}),
    ("torch.optim.AdamW", {"fused": True}), ("torch.optim.Adam", {"amsgrad": True}), ("torch.optim.Adagrad", {}),
    ("torch.optim.RMSprop", {"centered": True}), ("torch.optim.Adafactor", {}), ("torch.optim.ASGD", {}),
    ("tests.trainers.test_phase_runner.Lion", {})])
def test_the_start_foresees_the_optimizers_tensors(optimizer: str, options: dict[str, float]) -> None:
    """By name, shape and type as they are after a step, without one; and it leaves the state as it was."""
    one, other = (runner(model=lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), optimizer=optimizer,
                        options=options) for _ in range(2))
    before, made = weights_sha256(one.model.state_dict()), set(one.state()[0])
    versions = [parameter._version for parameter in one.trained]
    foreseen = one.start([batch(OWN)], None)
    assert weights_sha256(one.model.state_dict()) == before
    assert [parameter._version for parameter in one.trained] == versions, "the weights are not written to"
    assert set(one.state()[0]) == made
    assert all(value.is_meta for value in foreseen.values()), "nothing of it takes memory"
    for each in (one, other):
        take(each, batch(OWN), 0)
    taken = one.state()[0]
    assert {name: (value.shape, value.dtype) for name, value in foreseen.items()} == {
        name: (value.shape, value.dtype) for name, value in taken.items()}
    assert all(torch.equal(value, other.state()[0][name]) for name, value in taken.items())
    assert all(torch.equal(value, other.model.state_dict()[name]) for name, value in one.model.state_dict().items())


class Logarithm:
    """A task whose loss is NaN or Inf for some targets, and its gradient finite: that of log(-1) is -1."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return targets + outputs.sum(1)


def logarithm_step(world: World, bad: float, largest: int | None) -> tuple[bool, bool]:
    """Whether a step is taken of ten samples of which the last is `bad`, and whether it changes the weights."""
    one = runner(task=Logarithm(), world=world, largest=largest, batch_size=10)  # type: ignore[arg-type]
    before = weights_sha256(one.model.state_dict())
    mine = torch.tensor(list(shard(10, world.rank, world.size)))
    targets = torch.zeros(10).index_fill(0, torch.tensor(9), torch.tensor([bad]).log().item())
    found = torch.ones(10, 3)[mine]
    taken = take(one, Batch(found, targets[mine], mine, mine, mine < 0), 0)[1]
    return taken, weights_sha256(one.model.state_dict()) != before


@pytest.mark.parametrize("largest", [None, 3])
@pytest.mark.parametrize(("bad", "taken"), [(-1.0, False), (0.0, False), (2.0, True)])
def test_a_loss_that_is_not_finite_with_a_gradient_that_is(bad: float, taken: bool, largest: int | None) -> None:
    """Its step is not taken: NaN, Inf, and a finite loss."""
    assert logarithm_step(ALONE, bad, largest) == (taken, taken)


def rank_of_logarithm(world: World, folder: str) -> None:
    torch.save([logarithm_step(world, bad, 3) for bad in (-1.0, 2.0)], Path(folder, str(world.rank)))


@pytest.mark.slow
def test_all_ranks_learn_of_such_a_loss_of_one(tmp_path: Path) -> None:
    on_ranks(2, rank_of_logarithm, tmp_path)
    assert [torch.load(tmp_path / str(rank)) for rank in range(2)] == [[(False, False), (True, True)]] * 2


def test_a_step_does_not_ask_for_devices_of_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch.manual_seed does, in 200 us."""
    one = runner()
    monkeypatch.setattr(torch, "manual_seed", None)
    take(one, batch(OWN), 0)


class Counting(torch.optim.SGD):
    """Does something of its own when gradients are cleared."""

    cleared = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self.cleared += 1


def test_an_optimizer_with_a_zero_grad_of_its_own_is_asked() -> None:
    """Also one of several."""
    counting = {"_target_": "tests.trainers.test_phase_runner.Counting", "lr": 0.1}
    phase = {"epochs": 1, "optimizer": counting, "groups": {"bias": {"match": ["bias"], "optimizer": counting}}}
    one = runner(phases={"only": phase})
    take(one, batch(OWN), 0)
    assert [part.cleared for part in parts_of_step(one.optimizer)] == [1, 1]  # type: ignore[attr-defined]
    assert all(parameter.grad is None for parameter in one.trained)
