"""Segmentation: losses, metrics, texts and pictures, against torch's and against numbers computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassJaccardIndex

from drumbeat.trainers.tasks import Results, Segmentation
from drumbeat.trainers.tasks.measure import measure

IGNORED = 255


def random_batch(n: int = 5, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Logits and masks of which a third does not count, in another number of pixels of each sample."""
    torch.manual_seed(0)
    targets = torch.randint(0, classes, (n, 6, 4))
    targets[torch.rand(n, 6, 4) < torch.linspace(0, 0.7, n)[:, None, None]] = IGNORED
    return torch.randn(n, classes, 6, 4), targets.byte()


def results_of(task: Segmentation, outputs: Any, targets: Tensor) -> Results:
    return Results(task.losses(outputs, targets), weights=task.weights(targets), summary=task.summary(outputs, targets),
                   worst=dict(enumerate(task.predictions(outputs))))


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 4.0])])
def test_the_mean_loss_is_torchs_over_the_pixels_that_count(weight: Tensor | None) -> None:
    outputs, targets = random_batch()
    task = Segmentation(loss=nn.CrossEntropyLoss(weight=weight) if weight is not None else None)
    expected = float(functional.cross_entropy(outputs, targets.long(), weight=weight, ignore_index=IGNORED))
    results = results_of(task, outputs, targets)
    assert task.metrics(results)["loss"] == pytest.approx(expected, rel=1e-6)
    assert float(results.losses.sum() / task.weights(targets).sum()) == pytest.approx(expected, rel=1e-6)
    parts = [results_of(task, outputs[part], targets[part]) for part in (slice(0, 2), slice(2, 5))]
    assert float(sum(one.losses.sum() for one in parts)) == pytest.approx(float(results.losses.sum()), rel=1e-6)


def test_an_auxiliary_output_adds_to_the_loss() -> None:
    (outputs, targets), aux = random_batch(), torch.randn(5, 3, 6, 4)
    both = {"out": outputs, "aux": aux}
    plain, more = Segmentation(), Segmentation(auxiliary=0.5)
    assert torch.equal(plain.losses(both, targets), plain.losses(outputs, targets))
    expected = plain.losses(outputs, targets) + 0.5 * plain.losses(aux, targets)
    assert torch.equal(more.losses(both, targets), expected)
    assert torch.equal(more.predictions(both), outputs.argmax(1).byte())


def test_metrics_are_those_of_torchmetrics() -> None:
    outputs, targets = random_batch()
    task = Segmentation()
    metrics = task.metrics(results_of(task, outputs, targets))
    counted = targets != IGNORED
    assert metrics["accuracy"] == float((outputs.argmax(1) == targets)[counted].double().mean())
    reference = MulticlassJaccardIndex(num_classes=3, ignore_index=IGNORED, average="none")
    each = reference(*task.metric_inputs(outputs, targets))
    assert metrics["mean_iou"] == pytest.approx(float(each.mean()), rel=1e-6)
    assert [row["iou"] for row in task.class_rows(results_of(task, outputs, targets))] == pytest.approx(each.tolist())


def masks() -> tuple[Tensor, Tensor]:
    """Two samples of 2 x 2 pixels and four classes, of which class 3 is nowhere: predicted 0 0 1 2 and 1 1 1 1, actual
    0 1 1 (ignored) and 1 1 1 1."""
    predicted = torch.tensor([[[0, 0], [1, 2]], [[1, 1], [1, 1]]])
    return functional.one_hot(predicted, 4).permute(0, 3, 1, 2).float(), torch.tensor([[[0, 1], [1, 255]],
                                                                                       [[1, 1], [1, 1]]])


def test_metrics_by_hand() -> None:
    """Class 0: 1 of 2; class 1: 5 of 6; classes 2 and 3 have no pixel that counts."""
    task = Segmentation(classes=["ground", "disc", "square", "line"])
    results = results_of(task, *masks())
    found = measure(task, results)
    assert found.metrics["accuracy"] == 6 / 7
    assert found.metrics["mean_iou"] == pytest.approx((1 / 2 + 5 / 6) / 2)
    assert found.classes[:3] == [
        {"name": "ground", "iou": 1 / 2, "precision": 1 / 2, "recall": 1.0, "pixels": 1, "samples": 1},
        {"name": "disc", "iou": 5 / 6, "precision": 1.0, "recall": 5 / 6, "pixels": 6, "samples": 2},
        {"name": "square", "iou": None, "precision": None, "recall": None, "pixels": 0, "samples": 0}]
    first, second = task.sample_rows(results)
    assert first == {"accuracy": 2 / 3, "mean_iou": 0.5, "iou of ground": 0.5, "iou of disc": 0.5,
                     "iou of square": None, "iou of line": None}
    assert second["mean_iou"] == 1.0
    assert task.worst_samples(results, 1)[0].title == "predicted, mean IoU 0.50"


def test_samples_without_a_pixel_that_counts() -> None:
    outputs, targets = random_batch(1)
    results = results_of(task := Segmentation(), outputs, torch.full_like(targets, IGNORED))
    assert results.mean_losses.tolist() == [0.0]
    assert all(math.isnan(value) for value in task.metrics(results).values())
    assert measure(task, results).metrics == {"loss": None, "accuracy": None, "mean_iou": None}


def test_texts() -> None:
    task = Segmentation(classes=["ground", "disc", "square"])
    assert task.to_text(torch.tensor([[0, 1], [255, 2]])) == "disc 25%, square 25%"
    assert task.to_text(torch.zeros(2, 2, dtype=torch.uint8)) == "ground"


def test_a_mask_is_drawn_over_its_image() -> None:
    """Half transparent inside, opaque at its edge; class 0 is not drawn."""
    image = torch.full((3, 5, 5), 100, dtype=torch.uint8)
    mask = torch.zeros(5, 5, dtype=torch.uint8)
    mask[:3, :3] = 1
    mask[4, 4] = 255
    drawn = Segmentation().draw(image, mask)
    assert drawn[:, 0, 0].tolist() == [158, 126, 55]
    assert drawn[:, 2, 0].tolist() == [230, 159, 0]
    assert drawn[:, 0, 4].tolist() == [100, 100, 100]
    assert drawn[:, 4, 4].tolist() == [128, 128, 128]


class Whole(nn.Module):
    reduction = "none"

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.mean()


@pytest.mark.parametrize(("task", "outputs", "message"), [
    (Segmentation(), torch.zeros(5, 3), r"the model returns \[5, 3\]; segmentation needs logits"),
    (Segmentation(), [1], "the model returns list; segmentation needs logits"),
    (Segmentation(), torch.zeros(5, 3, 3, 2), r"the outputs \[5, 3, 3, 2\] are not \[n, classes, H, W\]"),
    (Segmentation(loss=Whole()), torch.zeros(5, 3, 6, 4), r"the loss has the shape \[\]; this task needs one value"),
])
def test_what_does_not_fit(task: Segmentation, outputs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task.losses(outputs, random_batch()[1])
