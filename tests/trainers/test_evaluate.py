"""Evaluation: each sample once and the same numbers, however many ranks share it; losses, accuracy, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from drumbeat.trainers.evaluate import evaluate, judging
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.tasks import Classification, Mistake, Results, mean
from drumbeat.trainers.world import World, join
from tests.ranks import on_ranks
from tests.tiny import Net, Pictures

UNREADABLE = (0, 3, 9, 10, 11)


class Flawed(Pictures):
    """Pictures of which some cannot be read."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index in UNREADABLE:
            raise OSError(f"{index} is damaged")
        return super().__getitem__(index)


def judged(n: int, *, flawed: bool = False) -> Results:
    """A set of n pictures, evaluated by this process alone."""
    with join("cpu") as world:
        return evaluated(world, n, flawed=flawed)


def evaluated(world: World, n: int, *, flawed: bool) -> Results:
    """A set of n pictures, evaluated by all ranks."""
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
    for ours, alone in zip([*plain[:3], *flawed], [*judged(n)[:3], *judged(n, flawed=True)], strict=True):
        assert torch.equal(ours, alone)


def test_every_sample_is_there_in_the_order_of_the_set() -> None:
    results = judged(11)
    assert results.targets.tolist() == [Pictures(n=11)[index][1] for index in range(11)]
    assert results.outputs.shape == (11, 2)


def test_what_cannot_be_read_is_left_out_and_changes_no_other_row() -> None:
    """The chunks keep their size, so that the others' last digits stay too."""
    whole, results = judged(30), judged(30, flawed=True)
    there = [index for index in range(30) if index not in UNREADABLE]
    assert whole.samples is None
    assert results.samples is not None
    assert results.samples.tolist() == there
    assert torch.equal(results.targets, whole.targets[there])
    own = [row for row, index in enumerate(there) if index >= 12]  # in chunks that lack nothing
    assert torch.equal(results.losses[own], whole.losses[12:])
    assert torch.equal(results.outputs[own], whole.outputs[12:])
    assert torch.allclose(results.outputs, whole.outputs[there])


def test_metrics_and_mistakes() -> None:
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]])
    targets = torch.tensor([0, 1, 1, 0])
    task = Classification(classes=["cat", "dog"])
    results = Results(task.losses(outputs, targets), outputs, targets)
    assert task.metrics(results)["accuracy"] == 0.5
    assert task.metrics(results)["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(outputs, targets).item(), abs=1e-7)
    assert task.mistakes(results, 5) == [Mistake(2, "predicted cat\nactual dog"),
                                         Mistake(3, "predicted dog\nactual cat")]
    assert task.mistakes(results, 1) == [Mistake(2, "predicted cat\nactual dog")]


def test_log_softmax_and_nll_is_cross_entropy() -> None:
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    nll = Classification(loss=torch.nn.NLLLoss()).losses(outputs.log_softmax(1), targets)
    torch.testing.assert_close(nll, Classification().losses(outputs, targets))


def test_the_mean_does_not_depend_on_the_order() -> None:
    losses = torch.rand(10_000) * torch.logspace(-6, 6, 10_000)
    assert mean(losses) == mean(losses.flip(0))


def test_batch_statistics_are_those_of_the_chunk_and_leave_the_running_ones_alone() -> None:
    """As torch computes them from the batch alone; and the model is afterwards what it was."""
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3)
    norm(torch.randn(8, 3, 4, 4) * 5 + 2)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    batch = torch.randn(2, 3, 4, 4)
    with judging(norm, batch_statistics=True):
        outputs = norm(batch)
    torch.testing.assert_close(outputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(outputs, torch.nn.functional.batch_norm(batch, None, None, training=True))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    with judging(norm):
        assert not torch.allclose(norm(batch), outputs)
    with pytest.raises(ValueError, match="more than 1 value"), judging(norm, batch_statistics=True):
        norm(torch.zeros(1, 3, 1, 1))
    assert norm.running_mean is not None
