"""Losses of elements and of targets that do not count: torch's mean over the whole batch, on any number of ranks, in
micro-batches, in bfloat16 and with mixed samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from drumbeat.trainers.inference.plots import draw
from drumbeat.trainers.inference.tables import sample_cells
from drumbeat.trainers.tasks import Classification, Results
from drumbeat.trainers.tasks.measure import measure
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.trainers.one_step import ALONE, assert_same, step, torchs
from tests.trainers.tasks.evaluated import results_of

N = 7
GENERATOR = torch.Generator().manual_seed(3)
POINTS = torch.randn(N, 6, generator=GENERATOR)
LABELS = torch.tensor([0, -1, 2, 1, -1, 1, 2])
WORDS = torch.tensor([[0, 1, -100], [2, -100, -100], [1, 1, 1], [-100, -100, -100], [0, 2, 1], [2, 2, -100], [1, 0, 0]])
PIXELS = (torch.arange(N * 4) % 3 > 0).long().reshape(N, 2, 2)
CLASS_WEIGHTS = torch.tensor([1.0, 3.0, 0.5])


class Shaped(nn.Module):
    """A linear layer, whose outputs have this shape for each sample."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        self.layer = nn.Linear(6, int(torch.tensor(shape).prod()))

    def forward(self, points: Tensor) -> Tensor:
        return self.layer(points).reshape(-1, *self.shape)  # type: ignore[no-any-return]


def model_of(*shape: int) -> Shaped:
    torch.manual_seed(0)
    return Shaped(*shape)


Case = tuple[tuple[int, ...], Callable[[], Classification], Tensor, Callable[[Tensor], Tensor]]
CASES: dict[str, Case] = {
    "ignored samples": ((3,), lambda: Classification(loss=nn.CrossEntropyLoss(ignore_index=-1)), LABELS,
                        lambda outputs: cross_entropy(outputs, LABELS, ignore_index=-1)),
    "ignored samples, weights": (
        (3,), lambda: Classification(loss=nn.CrossEntropyLoss(ignore_index=-1, weight=CLASS_WEIGHTS)), LABELS,
        lambda outputs: cross_entropy(outputs, LABELS, weight=CLASS_WEIGHTS, ignore_index=-1)),
    "words": ((3, 3), Classification, WORDS, lambda outputs: cross_entropy(outputs, WORDS)),
    "words, classes last": ((3, 3), lambda: Classification(class_dim=-1), WORDS,
                            lambda outputs: cross_entropy(outputs.movedim(-1, 1), WORDS)),
    "words, weights": ((3, 3), lambda: Classification(loss=nn.CrossEntropyLoss(weight=CLASS_WEIGHTS)), WORDS,
                       lambda outputs: cross_entropy(outputs, WORDS, weight=CLASS_WEIGHTS)),
    "pixels": ((2, 2, 2), Classification, PIXELS, lambda outputs: cross_entropy(outputs, PIXELS)),
    "pixels, one output": ((1, 2, 2), Classification, PIXELS,
                           lambda outputs: binary_cross_entropy_with_logits(outputs[:, 0], PIXELS.float())),
}


def step_of(name: str, **options: Any) -> Any:
    shape, task, targets, _ = CASES[name]
    return step(model_of(*shape), task(), POINTS, targets, N, **options)


def torchs_of(name: str) -> Any:
    shape, _, _, loss = CASES[name]
    model = model_of(*shape)
    return torchs(lambda: loss(model(POINTS)), dict(model.named_parameters()))


@pytest.mark.parametrize("largest", [None, 1, 3])
@pytest.mark.parametrize("name", CASES)
def test_the_mean_is_torchs(name: str, largest: int | None) -> None:
    assert_same([step_of(name, largest=largest)], torchs_of(name))


@pytest.mark.parametrize("name", CASES)
def test_in_bfloat16(name: str) -> None:
    shape, _, _, loss = CASES[name]
    model = model_of(*shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(POINTS)
    expected = torchs(lambda: loss(outputs.float()), dict(model.named_parameters()))
    assert_same([step_of(name, precision="bf16", largest=3)], expected, rel=0.02)


def rank(world: World, folder: str) -> None:
    torch.save({name: [step_of(name, world=world, largest=largest) for largest in (None, 1)] for name in CASES},
               Path(folder, str(world.rank)))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_on_any_number_of_ranks(tmp_path: Path, ranks: int) -> None:
    """Although their shards have different numbers of elements that count, and a micro-batch may have none."""
    on_ranks(ranks, rank, tmp_path)
    found = [torch.load(tmp_path / str(rank)) for rank in range(ranks)]
    for name in CASES:
        for steps in zip(*(one[name] for one in found), strict=True):
            assert_same(list(steps), torchs_of(name))


@pytest.mark.parametrize("name", ["ignored samples", "words, weights"])
def test_mixed_samples(name: str) -> None:
    """Each sample's loss and weight is the mean of those for both targets, weighted as its inputs are."""
    shape, task, targets, _ = CASES[name]
    partner, kept = targets.flip(0), torch.linspace(0.1, 0.9, N)
    model, plain = model_of(*shape), task()
    found = step(model_of(*shape), task(), POINTS, {"own": targets, "partner": partner, "kept": kept}, N, mix=True)

    def by_hand() -> Tensor:
        outputs = model(POINTS)
        losses = plain.losses(outputs, targets) * kept + plain.losses(outputs, partner) * (1 - kept)
        weights = [plain.weights(one) for one in (targets, partner)]
        assert weights[0] is not None and weights[1] is not None
        return losses.sum() / (weights[0] * kept + weights[1] * (1 - kept)).sum()

    assert_same([found], torchs(by_hand, dict(model.named_parameters())))


@pytest.mark.parametrize("name", CASES)
def test_metrics_count_what_the_loss_counts(name: str) -> None:
    shape, build, targets, loss = CASES[name]
    task, outputs = build(), model_of(*shape)(POINTS).detach()
    selected = task.select(outputs)
    results = Results(task.losses(outputs, targets), selected, targets, weights=task.weights(targets))
    metrics = task.metrics(results)
    assert metrics["loss"] == pytest.approx(float(loss(outputs)), rel=1e-6)
    counted = targets >= 0
    correct = (task.predictions(selected) == targets)[counted]
    assert metrics["accuracy"] == float(correct.double().mean())


def test_a_set_whose_labelled_samples_are_right() -> None:
    task = Classification(loss=nn.CrossEntropyLoss(ignore_index=-1), classes=["a", "b"])
    outputs, targets = torch.tensor([[5.0, 0], [0, 5.0], [5.0, 0], [0, 5.0]]), torch.tensor([0, 1, -1, 1])
    results = results_of(task, outputs, targets)
    assert task.metrics(results)["accuracy"] == 1.0
    assert task.worst_samples(results, 9) == []
    assert task.to_text(torch.tensor([0, -1, 1])) == "a - b"
    nothing = results_of(task, outputs[2:3], targets[2:3])
    assert str(task.metrics(nothing)) == "{'loss': nan, 'accuracy': nan}"


def test_the_default_loss_ignores_no_sample() -> None:
    """Otherwise each step would have to sum the number of those that count over the ranks."""
    with pytest.raises(IndexError, match="Target -100 is out of bounds"):
        Classification().losses(torch.zeros(2, 3), torch.tensor([0, -100]))
    assert Classification().weights(LABELS) is None


@pytest.mark.parametrize(("shape", "hint"), [((N, 3, 4), "; they seem to be in the last one, for which the task needs "
                                                          "class_dim: -1"), ((N, 4, 2), "")])
def test_classes_in_another_dimension_are_refused(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(ValueError) as raised:
        Classification().losses(torch.zeros(shape), WORDS)
    assert str(raised.value) == ("for targets [7, 3] the outputs must be [n, classes, ...], with the classes in "
                                 f"dimension 1, and they are {list(shape)}{hint}")


def test_a_batch_in_which_nothing_counts_changes_nothing() -> None:
    loss, gradients = step(model_of(3, 3), Classification(), POINTS, torch.full_like(WORDS, -100), N, world=ALONE)
    assert loss == 0.0 and not any(gradient.any() for gradient in gradients.values())


def test_tables_and_plots_of_elements(tmp_path: Path) -> None:
    """The table of classes counts each element as a sample; that of samples has a row for each of these."""
    task = Classification(classes=["a", "b", "c"])
    results = results_of(task, model_of(3, 3)(POINTS).detach(), WORDS)
    found = measure(task, results)
    assert sum(row["samples"] for row in found.classes) == int((WORDS >= 0).sum())
    assert found.metrics["accuracy"] == sum(row["correct"] for row in found.classes) / int((WORDS >= 0).sum())
    assert {file.name for file in draw(task, results, found, tmp_path)} == {"confusion.png", "roc.png",
                                                                            "precision_recall.png"}
    heading, cells = sample_cells(task, results)
    assert heading == ["actual", "loss", "prediction"]
    assert [row[0] for row in cells[:2]] == ["a b -", "c - -"] and len(cells) == N
