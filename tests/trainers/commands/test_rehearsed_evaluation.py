"""The rehearsal of an evaluation: its errors before the run starts, and the memory it will take."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.commands import rehearsed_evaluation
from drumbeat.trainers.commands.preflight import preflight
from tests.tiny import write_config

BLEU = "evaluation.metrics={bleu: {_target_: torchmetrics.text.BLEUScore}}"
SEVERAL = ("evaluation.metrics={each: {_target_: torchmetrics.MetricCollection, metrics: [{_target_: "
           "torchmetrics.classification.MulticlassF1Score, num_classes: 2}]}}")


def test_a_metric_that_cannot_take_the_predictions_is_found(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"4 samples of data\.validation cannot be evaluated: \w+Error"):
        preflight(load(write_config(tmp_path), [BLEU]).config)


def test_a_number_of_a_dict_can_be_monitored_if_it_is_there(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    preflight(load(path, [SEVERAL, "evaluation.monitor=each_MulticlassF1Score"]).config)
    with pytest.raises(PreflightError, match=r"there is no metric\s+'each_f1'"):
        preflight(load(path, [SEVERAL, "evaluation.monitor=each_f1"]).config)


def test_the_memory_of_large_results_is_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 30 validation samples of the small experiment, with a loss, two outputs and a class number each."""
    config = load(write_config(tmp_path), []).config
    assert preflight(config)["notes"] == []
    monkeypatch.setattr(rehearsed_evaluation, "MUCH", 30 * (4 + 2 * 4 + 8))
    (note,) = preflight(config)["notes"]
    assert note == ("an evaluation of data.validation keeps 0.0 GB in the memory of rank 0, 0.0 MB for each of 30 "
                    "samples; a task with a `summary` keeps less")
