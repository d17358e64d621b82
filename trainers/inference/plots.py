"""Plots of an evaluated set: confusion matrix, ROC and precision-recall curves, predicted against actual values.

Curves use the colours of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart,
and line styles; matrices use one hue from light to dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from drumbeat.configs.output_file import replacing
from drumbeat.configs.run.checkpoint_records import Metrics
from drumbeat.configs.terminal import visible
from drumbeat.trainers.tasks import Classification, Results, Task

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
FEW = 7
"""The number of classes whose curves have their own colours."""
GRAY = 100
"""The largest number of gray curves, for the other classes."""
WRITTEN = 25
"""The largest number of classes for which a confusion matrix shows its counts."""
NAMED = 60
"""The largest number of rows of a confusion matrix that are labelled; with more classes, every n-th row is."""
POINTS = 2000
"""The largest number of points in a drawn curve."""


def draw(task: Task, results: Results, found: Metrics, folder: Path) -> list[Path]:
    """Writes the plots for this kind of task into a folder. Returns their files. `found` are the metrics of the
    results."""
    if isinstance(task, Classification):
        results = task.elements(results)
    if task.kind == "regression":
        return [_scatter(task, results, found, folder / "scatter.png")]
    files: list[Path] = []
    if task.kind == "other":
        return files
    if task.kind == "classification":
        files.append(_confusion(np.array(found.confusion), [row["name"] for row in found.classes],
                                folder / "confusion.png"))
    if any(row["auroc"] is not None for row in found.classes):
        files += [_curves(task, results, found, folder / "roc.png", roc=True),
                  _curves(task, results, found, folder / "precision_recall.png", roc=False)]
    return files


@contextmanager
def _picture(file: Path, width: float, height: float, *, panels: tuple[int, int] = (1, 1)) -> Iterator[Any]:
    """Axes to draw on, one for each panel; saved at the end."""
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
                                "axes.titlesize": 11, "axes.grid": False}):
        figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
        axes = figure.subplots(*panels, squeeze=False)
        yield axes.flatten() if panels != (1, 1) else axes[0, 0]
        with replacing(file) as temporary:
            figure.savefig(temporary, bbox_inches="tight", facecolor="white")


def _confusion(counts: Any, names: Sequence[str], file: Path) -> Path:
    """A row for each actual class, coloured by the fraction of the class that was predicted as each class."""
    count = len(names)
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    names = [_fitting(name, 24) for name in names]
    side = min(14.0, max(4.5, 2.5 + 0.42 * min(count, WRITTEN) + 0.06 * max(0, count - WRITTEN)))
    with _picture(file, side + 0.9, side) as axes:
        drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        every = max(1, -(-count // NAMED))
        ticks = range(0, count, every)
        small = 9 if count <= WRITTEN else 6
        upright = max(map(len, names)) * count <= 30
        axes.set_xticks(ticks, [names[tick] for tick in ticks], fontsize=small, rotation=0 if upright else 90)
        axes.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=small)
        axes.set(xlabel="predicted", ylabel="actual", title="Confusion matrix")
        axes.figure.colorbar(drawn, ax=axes, label="fraction of the actual class", fraction=0.046, pad=0.03)
        axes.spines[:].set_visible(False)
        if count <= WRITTEN:
            for row, column in np.argwhere(counts >= 0):
                if counts[row, column] or count <= 10:
                    axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center",
                              fontsize=9 if count <= 12 and counts.max() < 10_000 else 6.5,
                              color="white" if shares[row, column] > 0.55 else "#222222")
    return file


def _curves(task: Task, results: Results, found: Metrics, file: Path, *, roc: bool) -> Path:
    """A curve for each class against all others; of two classes, only for the second. With more than `FEW` classes,
    those with the lowest metric are in colour and the others are gray."""
    probabilities = task.probabilities(results.outputs)
    assert probabilities is not None
    metric, title = ("auroc", "AUROC") if roc else ("average_precision", "average precision")
    rows = list(enumerate(found.classes))
    if task.kind == "classification" and len(rows) == 2:
        rows = rows[1:]
    rows = [(number, row) for number, row in rows if row[metric] is not None]
    by_metric = sorted(rows, key=lambda pair: pair[1][metric])
    shown, others = {number for number, _ in by_metric[:FEW]}, by_metric[FEW:]
    with _picture(file, 5.8, 5.8 if len(shown) <= 3 else 6.2) as axes:
        gray = others[::-(-len(others) // GRAY) or 1]
        for number, row in [*gray, *by_metric[:FEW]]:  # gray curves first, so that they are drawn below
            truth = (results.targets == number if task.kind == "classification"
                     else results.targets.view_as(probabilities)[:, number]).long()
            across, up = _curve(probabilities[:, number], truth, roc=roc)
            place = sorted(shown).index(number) if number in shown else -1
            look = {"color": "#BBBBBB", "linewidth": 0.6} if place < 0 else {
                "color": COLOURS[place % len(COLOURS)], "linestyle": STYLES[place % len(STYLES)], "linewidth": 1.8,
                "label": f"{_fitting(row['name'], 22)}  {row[metric]:.3f}"}
            axes.plot(across, up, **look)
        if others:
            axes.plot([], [], color="#BBBBBB", label=f"{'some of ' * (len(others) > GRAY)}{len(others)} other classes")
        if roc:
            axes.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, linestyle=(0, (1, 3)), label="chance")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal",
                 xlabel="false positive rate" if roc else "recall",
                 ylabel="true positive rate (recall)" if roc else "precision",
                 title="ROC curve" if roc else "Precision-recall curve")
        axes.grid(color="#E6E6E6", linewidth=0.6)
        axes.set_axisbelow(True)
        worst = " (lowest)" if others else ""
        axes.figure.legend(title=f"{title}{worst}", loc="outside lower center", ncols=2 if len(shown) < 4 else 3,
                           fontsize=8, title_fontsize=8, frameon=False)  # outside, so that it covers no curve
    return file


def _curve(scores: Tensor, truth: Tensor, *, roc: bool) -> tuple[Any, Any]:
    """The curve of a class as numpy arrays: at most `POINTS` points, equally spaced along the curve."""
    if roc:
        across, up, _ = binary_roc(scores, truth)
    else:
        up, across, _ = binary_precision_recall_curve(scores, truth)
    along = torch.cat([torch.zeros(1), (across.diff().abs() + up.diff().abs()).double().cumsum(0)])
    chosen = torch.searchsorted(along, torch.linspace(0, float(along[-1]), POINTS)).clamp(max=len(along) - 1).unique()
    return across[chosen].numpy(), up[chosen].numpy()


def _scatter(task: Task, results: Results, found: Metrics, file: Path) -> Path:
    """Predicted against actual values: a panel for each of at most six values."""
    predicted = task.predictions(results.outputs).numpy()
    targets = results.targets.view(predicted.shape).numpy()
    rows = found.classes[:6]
    wide = 2 if len(rows) == 4 else min(3, len(rows))
    tall = -(-len(rows) // wide)
    with _picture(file, 5.2 * wide if wide == 1 else 4.2 * wide, 5.2 * tall if wide == 1 else 4.4 * tall,
                  panels=(tall, wide)) as panels:
        several = np.atleast_1d(panels)
        for axes, row, guess, truth in zip(several, rows, predicted.T, targets.T, strict=False):
            low, high = min(guess.min(), truth.min()), max(guess.max(), truth.max())
            margin = 0.04 * (high - low) or 1.0
            ends = (low - margin, high + margin)
            axes.plot(ends, ends, color="#888888", linewidth=0.9, linestyle="--", zorder=1)
            axes.scatter(truth, guess, s=12 if len(truth) < 2000 else 4, alpha=0.7 if len(truth) < 500 else 0.3,
                         color=COLOURS[0], linewidths=0, zorder=2)
            r2 = "" if row["r2"] is None else f"   R² {row['r2']:.3f}"
            name = "" if len(found.classes) == 1 else f"{_fitting(row['name'], 24)}\n"
            axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel="actual", ylabel="predicted",
                     title=f"{name}mean absolute error {row['mae']:.3g}{r2}")
            axes.grid(color="#E6E6E6", linewidth=0.6)
            axes.set_axisbelow(True)
        for axes in several[len(rows):]:
            axes.set_visible(False)
    return file


def _fitting(name: str, most: int) -> str:
    """A name cut to `most` characters, with `$` escaped, because matplotlib would read it as mathematics, and control
    characters shown, because it cannot draw them."""
    name = visible(name)
    short = name if len(name) <= most else f"{name[:most - 1]}…"
    return short.replace("$", r"\$")
