"""The metrics of `evaluation.metrics`: what is built, what is refused, and the numbers that count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.configs.schema import Config
from drumbeat.trainers.metrics import build_metrics, check_monitor, values_of
from drumbeat.trainers.tasks import Classification, MultiLabel
from tests.tiny import write_config

F1 = "evaluation.metrics={f1: {_target_: torchmetrics.classification.MulticlassF1Score, num_classes: 2}}"


def config(folder: Path, *overrides: str) -> Config:
    return load(write_config(folder), overrides).config


def test_a_metric_by_its_address(tmp_path: Path) -> None:
    metric = build_metrics(config(tmp_path, F1), Classification())["f1"]
    metric.update(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]), torch.tensor([0, 1, 0]))
    assert values_of("f1", metric.compute()) == {"f1": pytest.approx(2 / 3)}


@pytest.mark.parametrize(("overrides", "task", "message"), [
    (["evaluation.metrics={mine: {_target_: torch.nn.Identity}}"], Classification(),
     "mine is not a metric: it has no method reset"),
    (["evaluation.metrics={accuracy: {_target_: torchmetrics.classification.MulticlassAccuracy, num_classes: 2}}"],
     Classification(), "the task has a metric 'accuracy' already"),
    ([F1], MultiLabel(), "the task has a metric 'f1' already"),
    (["evaluation.metrics={f1: {_target_: torchmetrics.classification.MulticlassF1}}"], Classification(),
     "no 'MulticlassF1'"),
])
def test_what_is_no_metric(tmp_path: Path, overrides: list[str], task: Any, message: str) -> None:
    with pytest.raises(PreflightError, match=message):
        build_metrics(config(tmp_path, *overrides), task)


@pytest.mark.parametrize("monitor", ["loss", "accuracy", "auroc", "balanced_accuracy", "calibration_error", "f1",
                                     "f1_of_one"])
def test_what_may_be_monitored(tmp_path: Path, monitor: str) -> None:
    """The task's metrics, those of an evaluation, and those of the config."""
    assert check_monitor(config(tmp_path, F1, f"evaluation.monitor={monitor}"), Classification()) == []


def test_a_metric_that_nothing_computes(tmp_path: Path) -> None:
    (fault,) = check_monitor(config(tmp_path, F1, "evaluation.monitor=aurok"), Classification())
    assert (fault.what, fault.remedy) == ("there is no metric 'aurok'", "Did you mean 'auroc'?")


@pytest.mark.parametrize(("computed", "values"), [
    (torch.tensor(0.5), {"m": 0.5}), (torch.tensor([0.5]), {"m": 0.5}), (3, {"m": 3.0}),
    ({"a": torch.tensor(1), "b": 2.5, "classes": torch.arange(3)}, {"m_a": 1.0, "m_b": 2.5}),
])
def test_the_numbers_of_a_metric(computed: Tensor | dict[str, Any], values: dict[str, float]) -> None:
    assert values_of("m", computed) == values


def test_a_metric_without_a_number_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"the metric 'm' has computed a tensor \[3\], and neither one number"):
        values_of("m", torch.zeros(3))
