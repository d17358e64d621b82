"""The figures of a source, checked against the run that they are shown beside."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load, read, reload
from drumbeat.configs.operation import Reference
from drumbeat.configs.reference import reference_faults

METRICS = ("loss", "accuracy")


def faults(*changes: str) -> list[tuple[str, str, str, str]]:
    return [(fault.what, fault.where, fault.given, fault.remedy)
            for fault in reference_faults(load("resnet50_xray", changes).config, METRICS)]


def test_the_shipped_figures_fit() -> None:
    """A phase that is removed takes its figures with it, and {} removes all."""
    assert faults() == []
    assert faults("phases.finetune=null") == []
    assert list(load("resnet50_xray", ["phases.finetune=null"]).config.reference.curves) == ["head"]
    assert load("resnet50_xray", ["reference={}"]).config.reference == Reference()
    assert load("resnet50_xray_demo").config.reference == Reference()


@pytest.mark.parametrize(("change", "expected"), [
    ("reference.curves.tune={train/loss: [1]}",
     ("the reference has figures for a phase that the run does not have: tune", "reference.curves.tune", "",
      "The phases are head, finetune. Without the figures: 'reference={}'")),
    ("reference.curves.head.validation/acuracy=[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]",
     ("the run has no curve validation/acuracy", "reference.curves.head", "validation/acuracy: [1, 1, 1, 1, 1, ...]",
      "Did you mean 'validation/accuracy'?")),
    ("reference.curves.head.train/loss=[0.5, 0.25]",
     ("the reference has columns of different lengths in phase head", "reference.curves.head",
      "train/loss 2, validation/loss 10, validation/accuracy 10",
      "Give one figure for each epoch of the source's table.")),
    ("reference.curves.tune={}",
     ("the reference has figures for a phase that the run does not have: tune", "reference.curves.tune", "",
      "The phases are head, finetune. Without the figures: 'reference={}'")),
    ("reference.curves.head.train/loss=[1, 1, .inf, 1, 1, 1, 1, 1, 1, 1]",
     ("the figures of a reference must be finite", "reference.curves.head", "train/loss: [1, 1, inf, 1, 1, ...]", "")),
])
def test_what_does_not_fit(change: str, expected: tuple[str, str, str, str]) -> None:
    assert faults(change) == [expected]


@pytest.mark.parametrize("change", ["reference.curves.head.train/loss=0.5", "reference.curves.head.train/loss=[low]"])
def test_figures_are_lists_of_numbers(change: str) -> None:
    with pytest.raises(ConfigError, match=r"reference\.curves.head\.train/loss must be a list of numbers"):
        faults(change)


def test_it_may_change_on_resume_and_an_older_copy_of_the_code_need_not_know_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(load("resnet50_xray", ["data.root=/photos"]).as_yaml())
    assert read(file).reference == load("resnet50_xray").config.reference
    assert reload(file, ["reference.source=another"]).config.reference.source == "another"
    assert "reference" not in load("resnet50_xray", ["data.root=/photos", "reference={}"]).as_yaml()
