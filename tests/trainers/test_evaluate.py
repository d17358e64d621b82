"""Evaluation: each sample once and the same numbers, however many ranks share it; losses, accuracy, worst samples."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from drumbeat.trainers.evaluate import evaluate, evaluation_mode
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.tasks import Classification, MultiLabel, Results, WorstSample
from drumbeat.trainers.world import World, join
from tests.ranks import on_ranks
from tests.tiny import Net, Pictures

UNREADABLE = (0, 3, 9, 10, 11)


class Flawed(Pictures):
    """Images, some of which cannot be read."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index in UNREADABLE:
            raise OSError(f"{index} is damaged")
        return super().__getitem__(index)


def evaluated_alone(n: int, *, flawed: bool = False) -> Results:
    """A set of n images, evaluated by this process alone."""
    with join("cpu") as world:
        return evaluated(world, n, flawed=flawed)


def evaluated(world: World, n: int, *, flawed: bool) -> Results:
    """A set of n images, evaluated by all ranks."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    forward = Forward(device=world.device, transforms=torch.nn.Sequential(_Scale()), channels_last=False, bf16=False)
    return evaluate(Net(), Classification(), Flawed(n=n) if flawed else Pictures(n=n), [], forward=forward,
                    world=world, batch_size=4, workers=0, skip_unreadable=flawed)


class _Scale(torch.nn.Module):
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.float() / 255


def rank(world: World, n: str, out: str) -> None:
    results = [tuple(evaluated(world, int(n), flawed=flawed)) for flawed in (False, True)]
    if world.is_main:
        torch.save(results, out)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "ranks"), [(30, 2), (30, 3), (5, 7)])
def test_the_same_results_on_any_number_of_ranks(tmp_path: Path, n: int, ranks: int) -> None:
    """Also where there are fewer chunks than ranks, and where samples cannot be read."""
    on_ranks(ranks, rank, n, tmp_path / "results")
    plain, flawed = torch.load(tmp_path / "results")
    assert plain[3] is None
    expected = [*evaluated_alone(n)[:3], *evaluated_alone(n, flawed=True)]
    for ours, alone in zip([*plain[:3], *flawed], expected, strict=True):
        assert torch.equal(ours, alone)


class Typed(Pictures):
    """Targets of a type that gloo does not know."""

    def __init__(self, *, n: int, dtype: torch.dtype) -> None:
        super().__init__(n=n)
        self.dtype = dtype

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return super().__getitem__(index)[0], torch.full((2,), index % 2, dtype=self.dtype)


class Zeros(MultiLabel):
    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(outputs))


TYPED = (torch.int16, torch.float16, torch.bfloat16, torch.bool)


def typed(world: World) -> list[torch.Tensor]:
    forward = Forward(device=world.device, transforms=torch.nn.Sequential(_Scale()), channels_last=False, bf16=False)
    return [evaluate(Net(), Zeros(), Typed(n=11, dtype=dtype), [], forward=forward, world=world, batch_size=4,
                     workers=0).targets for dtype in TYPED]


def typed_rank(world: World, out: str) -> None:
    found = typed(world)
    if world.is_main:
        torch.save(found, out)


@pytest.mark.slow
def test_targets_of_any_type_on_two_ranks(tmp_path: Path) -> None:
    on_ranks(2, typed_rank, tmp_path / "targets")
    with join("cpu") as world:
        for ours, alone, dtype in zip(torch.load(tmp_path / "targets"), typed(world), TYPED, strict=True):
            assert ours.dtype == dtype
            assert torch.equal(ours, alone)


class Drawing(Pictures):
    """Draws noise for each image that is read."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        picture, label = super().__getitem__(index)
        noise = random.randrange(20) + np.random.randint(20) + torch.randint(20, picture.shape)
        return (picture + noise).byte(), label


class Dropping(Net):
    """Draws in an evaluation too."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.nn.functional.dropout(pictures * random.random()))


def drawn(world: World, workers: int) -> torch.Tensor:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Dropping()
    world.seed(world.rank)
    forward = Forward(device=world.device, transforms=torch.nn.Sequential(_Scale()), channels_last=False, bf16=False)
    return evaluate(model, Classification(), Drawing(n=30), [], forward=forward, world=world, batch_size=4,
                    workers=workers).outputs


def drawing_rank(world: World, out: str) -> None:
    found = drawn(world, workers=2)
    if world.is_main:
        torch.save(found, out)


@pytest.mark.slow
def test_sets_and_models_that_draw_give_the_same_on_two_ranks_with_workers(tmp_path: Path) -> None:
    on_ranks(2, drawing_rank, tmp_path / "outputs")
    with join("cpu") as world:
        assert torch.equal(torch.load(tmp_path / "outputs"), drawn(world, workers=0))


class Widening(Net):
    """As many outputs as its batch has samples."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return super().forward(pictures)[:, :1].expand(-1, len(pictures))


def test_outputs_of_several_lengths_are_an_error() -> None:
    forward = Forward(device=torch.device("cpu"), transforms=torch.nn.Sequential(_Scale()), channels_last=False,
                      bf16=False)
    with join("cpu") as world, pytest.raises(ValueError, match=r"the shapes \[4, 4\] and \[1, 1\]"):
        evaluate(Widening(), Zeros(), Pictures(n=5), [], forward=forward, world=world, batch_size=4, workers=0)


class Caching(torch.nn.Linear):
    """A model that computes a table when it first needs it, as models with rotary embeddings do."""

    table: torch.Tensor | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.arange(1.0, 3.0)
        return super().forward(inputs) * self.table


def test_a_model_can_train_with_what_it_has_cached_in_an_evaluation() -> None:
    model = Caching(3, 2)
    with evaluation_mode(model):
        assert not model(torch.ones(1, 3)).requires_grad
    model(torch.ones(1, 3)).sum().backward()
    assert model.weight.grad is not None


def test_results_are_in_the_order_of_the_set() -> None:
    results = evaluated_alone(11)
    assert results.targets.tolist() == [Pictures(n=11)[index][1] for index in range(11)]
    assert results.outputs.shape == (11, 2)


def test_unreadable_samples_are_left_out_and_change_no_other_row() -> None:
    """Not even in its last digits, because the chunks keep their size."""
    whole, results = evaluated_alone(30), evaluated_alone(30, flawed=True)
    readable = [index for index in range(30) if index not in UNREADABLE]
    assert whole.subset is None
    assert results.subset is not None
    assert results.subset.tolist() == readable
    assert torch.equal(results.targets, whole.targets[readable])
    own = [row for row, index in enumerate(readable) if index >= 12]  # in chunks without unreadable samples
    assert torch.equal(results.losses[own], whole.losses[12:])
    assert torch.equal(results.outputs[own], whole.outputs[12:])
    assert torch.allclose(results.outputs, whole.outputs[readable])


def test_metrics_and_worst_samples() -> None:
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]])
    targets = torch.tensor([0, 1, 1, 0])
    task = Classification(classes=["cat", "dog"])
    results = Results(task.losses(outputs, targets), outputs, targets)
    assert task.metrics(results)["accuracy"] == 0.5
    assert task.metrics(results)["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(outputs, targets).item(), abs=1e-7)
    assert task.worst_samples(results, 5) == [WorstSample(2, "predicted cat\nactual dog"),
                                              WorstSample(3, "predicted dog\nactual cat")]
    assert task.worst_samples(results, 1) == [WorstSample(2, "predicted cat\nactual dog")]


def test_log_softmax_and_nll_is_cross_entropy() -> None:
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    nll = Classification(loss=torch.nn.NLLLoss()).losses(outputs.log_softmax(1), targets)
    torch.testing.assert_close(nll, Classification().losses(outputs, targets))


def test_batch_statistics_leave_the_running_ones_unchanged() -> None:
    """BatchNorm normalizes as torch does it with the batch alone, and its state is the same afterwards."""
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3)
    norm(torch.randn(8, 3, 4, 4) * 5 + 2)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    batch = torch.randn(2, 3, 4, 4)
    with evaluation_mode(norm, batch_statistics=True):
        outputs = norm(batch)
    torch.testing.assert_close(outputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(outputs, torch.nn.functional.batch_norm(batch, None, None, training=True))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    with evaluation_mode(norm):
        assert not torch.allclose(norm(batch), outputs)
    with pytest.raises(ValueError, match="more than 1 value"), evaluation_mode(norm, batch_statistics=True):
        norm(torch.zeros(1, 3, 1, 1))
    assert norm.running_mean is not None
