"""One training step: the loss of mixed samples, by hand, whole and in micro-batches; weighted losses, as torch has
them of the whole batch, at any width; and the pass before the first step."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.schema import Config
from drumbeat.data.loader import Batch
from drumbeat.data.order import key, shard
from drumbeat.trainers.build import build_forward
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.several_optimizers import parts_of_step
from drumbeat.trainers.tasks import Classification, Task
from drumbeat.trainers.world import World
from tests.ranks import on_ranks

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
KEPT = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])


def config(*, mix: bool = False, optimizer: str = "torch.optim.SGD",
           options: Mapping[str, float] = MappingProxyType({}), **values: Any) -> Config:
    return build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 5, "model": {"_target_": "x"}, "precision": "fp32",
        "data": {"mix": {"_target_": "drumbeat.data.Mixup"} if mix else {}},
        "phases": {"only": {"epochs": 1, "optimizer": {"_target_": optimizer, "lr": 0.1, **options}}}, **values})])


def runner(*, model: Callable[[], nn.Module] = lambda: nn.Linear(3, 4), task: Task | None = None, world: World = ALONE,
          largest: int | None = None, **values: Any) -> PhaseRunner:
    torch.manual_seed(0)
    made = config(micro_batch_size=largest, **values)
    return build_phase_runner(made, 0, model(), task or Classification(), world, build_forward(made, world.device))


def take(one: PhaseRunner, samples: Batch, step: int) -> tuple[Tensor, bool]:
    """A step as the loop takes it: its loss, and whether it was taken."""
    loss = one.backward([samples], step)
    return loss, one.settle(one.update())


def batch(targets: Any) -> Batch:
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    return Batch(inputs, targets, torch.arange(5), torch.arange(5), torch.zeros(5, dtype=torch.bool))


OWN, PARTNER = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([3, 3, 1, 0, 2])
MIXED = {"own": OWN, "partner": PARTNER, "kept": KEPT}


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


def test_fp16_scales_the_loss_and_clips_what_is_not_scaled() -> None:
    """The step is that in fp32 but for rounding; one that overflows is skipped and halves the scale."""
    fine, plain = runner(precision="fp16"), runner()
    for one in (fine, plain):
        one.clip_norm = 0.1
        assert take(one, batch(OWN), 0)[1]
    for one, other in zip(fine.model.parameters(), plain.model.parameters(), strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert fine.scaler is not None and plain.scaler is None and fine.scaler.get_scale() == 2**16
    before = [one.detach().clone() for one in fine.model.parameters()]
    fine.scaler.load_state_dict(fine.scaler.state_dict() | {"scale": 2.0**120})
    assert not take(fine, batch(OWN), 1)[1]
    assert all(torch.equal(one, other) for one, other in zip(fine.model.parameters(), before, strict=True))
    assert fine.state()[1]["scaler"]["scale"] == 2**119


WEIGHT = torch.tensor([1.0, 3.0, 0.5, 0.0])
CLASSES = torch.tensor([0, 1, 3, 2, 1, 0, 2])
POINTS = torch.randn(7, 3, generator=torch.Generator().manual_seed(2))


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
    losses = one.loss.each(one.model(batch(MIXED).inputs), MIXED).detach()
    weights = KEPT * WEIGHT[OWN] + (1 - KEPT) * WEIGHT[PARTNER]
    assert take(one, batch(MIXED), 0)[0].item() == pytest.approx(float(losses.sum() / weights.sum()), rel=1e-6)


def test_a_batch_that_weighs_nothing_changes_nothing() -> None:
    one = runner(task=Classification(loss=nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 1.0, 1.0]))))
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    loss, taken = take(one, batch(torch.zeros(5, dtype=torch.int64)), 0)
    assert (loss.item(), taken) == (0.0, True)
    assert all(torch.equal(old, new) for old, new in zip(before, one.model.parameters(), strict=True))


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


def test_a_pass_is_seeded_as_by_torch() -> None:
    """By the phase, the step and the rank, for every generator of the CPU."""
    drawn: list[Tensor] = []
    one = runner()
    one.model.register_forward_pre_hook(lambda module, given: drawn.append(torch.rand(3)))
    one.backward([batch(OWN)], 7)
    torch.manual_seed(key(0, "step", 0, 7, 0))
    assert torch.equal(drawn[0], torch.rand(3))


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
