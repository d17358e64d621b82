"""A model's outputs as the rows of a table: the answer in words, and a probability for each class, or the values."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from drumbeat.trainers.tasks import Task


def headings(task: Task, outputs: Tensor) -> list[str]:
    """What the columns are called: "prediction", then the classes; of a regression, the values, or "prediction" for a
    single one."""
    probabilities = task.probabilities(outputs)
    width = (task.predicted(outputs) if probabilities is None else probabilities).shape[1]
    names = [task.columns[number] if number < len(task.columns) else str(number) for number in range(width)]
    if probabilities is not None:
        return ["prediction", *names]
    return names if len(names) > 1 else ["prediction"]


def rows(task: Task, outputs: Tensor) -> list[list[str]]:
    """The cells under the headings, a row for each sample; probabilities to six places, values as they are."""
    answers, probabilities = task.predicted(outputs), task.probabilities(outputs)
    if probabilities is None:
        return [[f"{value:.7g}" for value in row] for row in answers.flatten(1).tolist()]
    return [[task.named(answer), *(f"{value:.6f}" for value in row)]
            for answer, row in zip(answers, probabilities.tolist(), strict=True)]


def write_csv(file: Path, heading: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Writes a whole table or nothing. Raises OSError."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as opened:
            table = csv.writer(opened)
            table.writerow(heading)
            table.writerows(lines)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
