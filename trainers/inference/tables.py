"""Predictions as a table: the predicted class and the probability of each class, or the predicted values."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from drumbeat.configs.output_file import replacing
from drumbeat.configs.terminal import NOT_UTF8
from drumbeat.trainers.tasks import Results, Task
from drumbeat.trainers.tasks.task import HasSampleRows


def headings(task: Task, outputs: Tensor) -> list[str]:
    """The headings of the columns: "prediction" and "probability of CLASS" for each class or label; for a regression
    "prediction", or "predicted NAME" for each of several values. With a class for each element of a sample, the
    predictions alone."""
    probabilities = task.probabilities(outputs)
    names = output_names(task, outputs)
    if probabilities is not None and probabilities.dim() > 2:
        return ["prediction"]
    if probabilities is not None:
        return ["prediction", *(f"probability of {name}" for name in names)]
    return [f"predicted {name}" for name in names] if len(names) > 1 else ["prediction"]


def output_names(task: Task, outputs: Tensor) -> list[str]:
    """The names of the classes, labels or values; their numbers if they have no names."""
    probabilities = task.probabilities(outputs)
    count = (task.predictions(outputs) if probabilities is None else probabilities).shape[1]
    return [task.output_names[number] if number < len(task.output_names) else str(number) for number in range(count)]


def rows(task: Task, outputs: Tensor) -> list[list[str]]:
    """The cells under the headings, a row for each sample; probabilities to six decimal places."""
    predictions, probabilities = task.predictions(outputs), task.probabilities(outputs)
    if probabilities is None:
        return [[f"{value:.7g}" for value in row] for row in predictions.flatten(1).tolist()]
    if probabilities.dim() > 2:
        return [[task.to_text(prediction)] for prediction in predictions]
    return [[task.to_text(prediction), *(f"{value:.6f}" for value in row)]
            for prediction, row in zip(predictions, probabilities.tolist(), strict=True)]


def sample_cells(task: Task, results: Results) -> tuple[list[str], list[list[str]]]:
    """The headings and the cells of a table of evaluated samples: target, loss and prediction; or loss and the task's
    own columns."""
    losses = [f"{loss:.6g}" for loss in results.mean_losses.tolist()]
    if task.kind == "other":
        own = task.sample_rows(results) if isinstance(task, HasSampleRows) else [{} for _ in losses]
        columns = [name.replace("_", " ") for name in (own[0] if own else {})]
        return ["loss", *columns], [[loss, *(_own_cell(value) for value in row.values())]
                                    for loss, row in zip(losses, own, strict=True)]
    return (["actual", "loss", *headings(task, results.outputs)],
            [[task.to_text(target), loss, *prediction] for target, loss, prediction in
             zip(results.targets, losses, rows(task, results.outputs), strict=True)])


def _own_cell(value: Any) -> str:
    return "" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)


FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""How a cell begins that a spreadsheet would compute (OWASP, CSV Injection), or that `cell` has written."""
NUMBERS = re.compile(r"[-+0-9.eE, ]*|[-+](?:nan|inf)")


def cell(text: str) -> str:
    """A text as a cell of a table. It gets an apostrophe in front if a spreadsheet would otherwise take it for a
    formula, and bytes of file names that are not UTF-8 are written as \\xNN."""
    shown = text.translate(NOT_UTF8)
    return f"'{shown}" if FORMULA.match(shown) and not NUMBERS.fullmatch(shown) else shown


def text_of(written: str) -> str:
    """The text of a cell that `cell` has written."""
    return written[1:] if written.startswith("'") and FORMULA.match(written) else written


def write_csv(file: Path, heading: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Writes a table. Raises like `replacing`."""
    with replacing(file) as new, open(new, "x", encoding="utf-8", newline="") as opened:
        table = csv.writer(opened)
        table.writerows(map(cell, line) for line in chain([heading], lines))
