"""The figures of a source beside those of a run: which step each belongs to, and the differences."""

from __future__ import annotations

import re
from html import unescape

import pytest

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.schema import Config
from drumbeat.trainers.report.charts import Chart, draw
from drumbeat.trainers.report.events import Events
from drumbeat.trainers.report.gallery import charts
from drumbeat.trainers.report.reference import epochs, reference_curves, reference_table

PROGRESS = Progress(data={"samples": 20})


@pytest.fixture
def config() -> Config:
    """Two epochs of five steps, then one of ten, for which the source has two rows."""
    optimizer = {"_target_": "x"}
    return build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 4, "model": {"_target_": "x"}, "tracking": {"every_steps": 2},
        "phases": {"head": {"epochs": 2, "optimizer": optimizer},
                   "all": {"epochs": 1, "batch_size": 2, "optimizer": optimizer}},
        "reference": {"source": "a <book>", "curves": {
            "head": {"train/loss": [0.5, 0.25], "validation/loss": [0.75, 0.5]},
            "all": {"validation/loss": [0.375, 0.25]}}}})])


EVENTS = Events({"train/loss": [(2, 0.75), (4, 0.5), (6, 0.25), (8, 0.25), (10, 0.125)],
                 "validation/loss": [(5, 0.8), (10, 0.5), (20, 0.125)]}, {})


def test_each_figure_belongs_to_an_epoch(config: Config) -> None:
    """The run's training loss is the mean of its points in the epoch, and a validation loss is that at its end."""
    found = epochs(config, EVENTS, PROGRESS)
    assert [(one.phase, one.number, one.first, one.last) for one in found] == [
        ("head", 1, 0, 5), ("head", 2, 5, 10), ("all", 1, 10, 20), ("all", 2, 20, 20)]
    assert [one.run for one in found] == [
        {"train/loss": 0.625, "validation/loss": 0.8}, {"train/loss": pytest.approx(0.625 / 3), "validation/loss": 0.5},
        {"validation/loss": 0.125}, {}]


def test_an_epoch_that_is_not_complete_has_no_figures(config: Config) -> None:
    """The last point of the training loss may be some steps before the end of an epoch."""
    for last, complete in ((6, 1), (8, 1), (9, 2)):
        curve = [(step, 0.5) for step in range(1, last + 1)]
        assert sum(bool(one.run) for one in epochs(config, Events({"train/loss": curve}, {}), PROGRESS)) == complete
    assert [one.run for one in epochs(config, Events({}, {}), Progress())] == [{}] * 4


def test_the_table(config: Config) -> None:
    text = reference_table(config, epochs(config, EVENTS, PROGRESS))
    rows = [[unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
            for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)]
    assert rows == [
        ["source", "a <book>"],
        ["epoch", "training loss: source", "run", "difference", "validation loss: source", "run", "difference"],
        ["head 1", "0.5", "0.625", "+0.1250", "0.75", "0.8", "+0.0500"],
        ["head 2", "0.25", "0.2083", "-0.0417", "0.5", "0.5", "+0.0000"],
        ["all 1", "", "", "", "0.375", "0.125", "-0.2500"],
        ["all 2", "", "", "", "0.25", "", ""]]
    assert reference_table(config, []) == ""


def test_the_curves_are_dashed_lines_where_the_run_has_them(config: Config) -> None:
    """A training loss is drawn in the middle of its epoch; an epoch that the run does not have is left out."""
    curves = reference_curves(epochs(config, EVENTS, PROGRESS))
    assert curves == {"train/loss": [(2, 0.5), (7, 0.25)], "validation/loss": [(5, 0.75), (10, 0.5), (20, 0.375)]}
    (figure,) = charts(EVENTS, [], None, curves)
    assert re.findall(r'<polyline class="(\w+)"', figure.body) == ["c0", "c1", "source", "source"]
    assert figure.note == "╌ source"
    assert "step 5: source, validation 0.75" in figure.body


def test_a_source_far_above_the_run_is_inside_the_chart() -> None:
    text = draw(Chart(title="loss", curves={"train": [(0, 1.0), (9, 1.5)]}, reference={"train": [(5, 9.0)]}), [], 9)
    (height,) = re.findall(r'<circle class="source" cx="[\d.]+" cy="([\d.]+)"', text)
    assert 26 < float(height) < 60
