"""Plots of an evaluated set: which files are written for each kind of task, with any names and any numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from drumbeat.data.cache import Pixels
from drumbeat.data.pixels import read_pixels
from drumbeat.trainers.inference.plots import POINTS, _curve, draw
from drumbeat.trainers.tasks import Classification, MultiLabel, Regression, Results, Task
from drumbeat.trainers.tasks.measure import measure

NAMES = [r"$\frac{$", "a" * 60, "日本", "plain"]
"""Names that a font or matplotlib's mathematics may not take."""


def drawn(task: Task, outputs: torch.Tensor, targets: torch.Tensor, folder: Path) -> dict[str, Pixels]:
    """The plots of a set as uint8 [H, W, 3], by name. They must be the only files."""
    results = Results(task.losses(outputs, targets), outputs, targets)
    files = draw(task, results, measure(task, results), folder)
    assert sorted(files) == sorted(folder.iterdir())
    return {file.name: read_pixels(str(file), channels=3) for file in files}


@pytest.mark.filterwarnings("ignore:Glyph")
def test_classes_have_a_confusion_matrix_and_two_kinds_of_curves(tmp_path: Path) -> None:
    targets = torch.tensor([0, 1, 2, 3, 0, 1])
    outputs = torch.nn.functional.one_hot(targets.roll(1), 4).float()
    plots = drawn(Classification(classes=NAMES), outputs, targets, tmp_path)
    assert list(plots) == ["confusion.png", "roc.png", "precision_recall.png"]


def test_a_row_of_the_matrix_is_an_actual_class_and_a_column_a_predicted_one(tmp_path: Path) -> None:
    """Both classes are predicted as the first, so the whole first column is dark, twice as high as it is wide."""
    targets = torch.tensor([0, 1, 0, 1])
    outputs = torch.tensor([[1.0, 0.0]] * 4)
    pixels = drawn(Classification(classes=["a", "b"]), outputs, targets, tmp_path)["confusion.png"].astype(int)
    matrix = pixels[:, :int(0.7 * pixels.shape[1])]  # without the colour bar
    dark = np.argwhere((np.abs(matrix - [8, 48, 107]) <= 2).all(2))  # the last colour of matplotlib's "Blues"
    height, width = np.ptp(dark, axis=0)
    assert height / width == pytest.approx(2, abs=0.05)
    assert height > pixels.shape[0] / 2


def test_without_samples_of_a_second_class_there_are_no_curves(tmp_path: Path) -> None:
    plots = drawn(Classification(classes=["a", "b"]), torch.zeros(3, 2), torch.zeros(3, dtype=torch.long), tmp_path)
    assert list(plots) == ["confusion.png"]


def test_labels_have_curves_only(tmp_path: Path) -> None:
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    plots = drawn(MultiLabel(classes=["a", "b"]), torch.randn(3, 2), targets, tmp_path)
    assert list(plots) == ["roc.png", "precision_recall.png"]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_values_have_a_panel_each_and_at_most_six(tmp_path: Path, count: int) -> None:
    """In rows of up to three. All targets of a value may be the same."""
    targets = torch.arange(3.0)[:, None].repeat(1, count)
    targets[:, -1] = 5.0
    plots = drawn(Regression(values=[f"v{number}" for number in range(count)]), targets, targets, tmp_path)
    height, width, _ = plots.pop("scatter.png").shape
    assert plots == {}
    assert width / height == pytest.approx({1: 1.0, 2: 2.0, 7: 1.45}[count], rel=0.15)


@pytest.mark.parametrize("roc", [True, False])
def test_a_curve_of_many_samples_has_few_points_and_keeps_its_ends(roc: bool) -> None:
    """Every other sample is positive, so the ROC curve is the diagonal and the precision one half, up to rounding."""
    count = 20_000
    scores, truth = torch.linspace(1, 0, count), torch.arange(count) % 2
    across, up = _curve(scores, truth, roc=roc)
    assert POINTS / 2 < len(across) <= POINTS
    if roc:
        assert (across[0], up[0], across[-1], up[-1]) == (0, 0, 1, 1)
        assert np.abs(across - up).max() < 1e-3
    else:
        assert sorted((across[0], across[-1])) == [0, 1]
        assert np.abs(up[(across > 0.01)] - 0.5).max() < 0.01
