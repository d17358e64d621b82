"""The metrics of an evaluated set as a table."""

from __future__ import annotations

import torch

from drumbeat.configs.run.checkpoint_records import Metrics
from drumbeat.trainers.inference.metrics import as_text
from drumbeat.trainers.tasks import Classification, Results
from drumbeat.trainers.tasks.measure import measure


def test_metrics_of_classes_as_text() -> None:
    task = Classification(classes=["a", "b", "c"])
    outputs, targets = torch.tensor([[2.0, 0, 0], [0, 1, 0], [3, 0, 0], [0, 1, 0]]), torch.tensor([0, 0, 0, 1])
    lines = as_text(measure(task, Results(task.losses(outputs, targets), outputs, targets))).splitlines()
    assert lines[-3].split()[:3] == ["a", "67%", "(2/3)"]
    assert lines[-1].split()[:3] == ["c", "no", "sample"]


def test_a_table_of_a_tasks_own() -> None:
    rows = [{"name": name, "pixels": 1234, "iou": iou} for name, iou in (("disc", 0.5), ("square", None))]
    found = Metrics(kind="other", metrics={"mean_iou": 0.5}, classes=rows)
    assert as_text(found).splitlines() == [
        "mean iou  0.5000", "", "class   pixels     iou", "disc     1,234  0.5000", "square   1,234       -"]
    assert as_text(Metrics(kind="other", metrics={"mean_iou": 0.5}, classes=[])).splitlines() == ["mean iou  0.5000"]


def test_of_many_classes_the_worst_are_printed() -> None:
    task = Classification(classes=[f"class {number}" for number in range(50)])
    targets = torch.arange(50).repeat(4)
    outputs = torch.nn.functional.one_hot(targets, 50).float()
    outputs[7] = 0
    outputs[7, 8] = 1
    lines = as_text(measure(task, Results(task.losses(outputs, targets), outputs, targets))).splitlines()
    assert "the 30 worst of 50" in lines
    assert lines[lines.index("the 30 worst of 50") + 3].startswith("class 7 ")
