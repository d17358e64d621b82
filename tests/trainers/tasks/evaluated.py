"""The results of a task, made by hand."""

from __future__ import annotations

from torch import Tensor

from drumbeat.trainers.tasks import Results, Task


def results_of(task: Task, outputs: Tensor, targets: Tensor) -> Results:
    return Results(task.losses(outputs, targets), outputs, targets)
