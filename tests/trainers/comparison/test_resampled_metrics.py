"""The metrics of a resample are those that `drumbeat evaluate` computes of its samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from drumbeat.trainers.comparison.resampled_metrics import MOST_SUMMED, Draws, resampled_metrics
from drumbeat.trainers.inference.samples import KeptSamples, kept_samples
from drumbeat.trainers.tasks import Classification, MultiLabel, Regression, Segmentation
from drumbeat.trainers.tasks.measure import measure
from drumbeat.trainers.tasks.task import Results, losses_of

N = 60
Made = Callable[[], tuple[Any, Tensor, Tensor]]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def classes(count: int, one_output: bool = False) -> tuple[Any, Tensor, Tensor]:
    """Scores with one decimal, so that some are equal."""
    targets = torch.randint(count, (N,), generator=torch.Generator().manual_seed(0))
    return Classification(), random(N, 1 if one_output else count).round(decimals=1), targets


TASKS: dict[str, Made] = {
    "two classes": lambda: classes(2),
    "one output": lambda: classes(2, one_output=True),
    "seven classes": lambda: classes(7),
    "many classes": lambda: classes(MOST_SUMMED + 1),
    "weighted": lambda: (Classification(loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))), *classes(2)[1:]),
    "elements": lambda: (Classification(loss=nn.CrossEntropyLoss(ignore_index=0)), random(N, 3, 5),
                         torch.randint(3, (N, 5), generator=torch.Generator().manual_seed(0))),
    "labels": lambda: (MultiLabel(), random(N, 3).round(decimals=1), (random(N, 3, 1)[:, :, 0] > 0.3).float()),
    "values": lambda: (Regression(), random(N, 2), random(N, 2, 1)[:, :, 0] + 100),
    "masks": lambda: (Segmentation(ignore_index=2), random(N, 2, 4, 4),
                      torch.randint(3, (N, 4, 4), generator=torch.Generator().manual_seed(0))),
}


def results_of(task: Any, outputs: Tensor, targets: Tensor) -> Results:
    losses = losses_of(task, outputs, targets, len(outputs))
    assert isinstance(losses, Tensor)
    weights = task.weights(targets) if hasattr(task, "weights") else None
    if isinstance(task, Segmentation):
        return Results(losses=losses, weights=weights, summary=task.summary(outputs, targets))
    return Results(losses=losses, outputs=outputs, targets=targets, weights=weights)


@pytest.mark.parametrize("name", TASKS)
def test_they_are_those_of_the_repeated_samples(name: str) -> None:
    """Each sample once, and a resample in which some are drawn several times and others never."""
    task, outputs, targets = TASKS[name]()
    drawn = torch.randint(N, (N,), generator=torch.Generator().manual_seed(3))
    counts = np.stack([np.ones(N), np.bincount(drawn.numpy(), minlength=N)]).astype(np.int32)
    kept = kept_samples(task, results_of(task, outputs, targets), object())
    found = resampled_metrics(kept)(Draws(counts))
    for row, rows in enumerate((torch.arange(N), drawn)):
        expected = measure(task, results_of(task, outputs[rows], targets[rows])).metrics
        own = {metric: values[row] for metric, values in found.items()}
        assert {*task.metric_names} <= own.keys() <= expected.keys()
        assert own == pytest.approx({metric: expected[metric] for metric in own}, rel=1e-5, abs=1e-6)


def test_what_is_undefined_is_not_a_number() -> None:
    """The area under the curve of a resample with one class."""
    task, outputs, _ = classes(2)
    kept = kept_samples(task, results_of(task, outputs[:3], torch.tensor([0, 0, 1])), object())
    found = resampled_metrics(kept)(Draws(np.array([[1, 2, 0], [1, 1, 1]], dtype=np.int32)))["auroc"]
    assert math.isnan(found[0]) and not math.isnan(found[1])


def test_a_task_of_another_kind_has_the_means_of_its_own_numbers() -> None:
    kept = KeptSamples(kind="other", names=["a", "b", "c"], groups=None, outputs=[], arrays={
        "losses": np.array([1.0, 2.0, 3.0], dtype=np.float32), "dice": np.array([0.5, np.nan, 1.0])})
    found = resampled_metrics(kept)(Draws(np.array([[1, 1, 1], [2, 1, 0]], dtype=np.int32)))
    assert {name: values.tolist() for name, values in found.items()} == {"loss": [2.0, 4 / 3], "dice": [0.75, 0.5]}
    with pytest.raises(ValueError, match="kind boxes"):
        resampled_metrics(KeptSamples(kind="boxes", names=[], groups=None, outputs=[]))
