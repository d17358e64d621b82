"""Curves, plots and images in a report: which there are, in which order, and what stands above them."""

from __future__ import annotations

import io
import math
import re
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.report.events import Curve, Events
from drumbeat.trainers.report.events import Image as EventImage
from drumbeat.trainers.report.gallery import charts, evaluations, images, phase_steps, validations


def png(size: tuple[int, int] = (30, 20)) -> bytes:
    out = io.BytesIO()
    Image.new("L", size).save(out, "png")
    return out.getvalue()


def cells(part: str) -> list[str]:
    """The texts of a table's cells."""
    return [unescape(text) for text in re.findall(r"<td[^>]*>(.*?)</td>", part)]


def test_phases_follow_one_another() -> None:
    """12 samples in batches of 5, for an epoch and for two and a half in batches of 4."""
    optimizer = {"_target_": "x"}
    config = build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 5, "model": {"_target_": "x"},
        "phases": {"head": {"epochs": 1, "optimizer": optimizer},
                   "all": {"epochs": 2.5, "batch_size": 4, "optimizer": optimizer}}})])
    assert phase_steps(config, Progress(data={"samples": 12})) == [("head", 0, 3), ("all", 3, 11)]
    assert phase_steps(config, Progress()) == []


def test_curves_of_the_same_name_share_a_chart() -> None:
    """Metrics first, then the learning rate, then speed; without curves that have no finite value."""
    tags = ["speed/samples_per_second", "speed/step_seconds", "speed/data_wait_fraction", "train/lr", "train/epoch",
            "train/loss", "validation/loss", "validation/macro_f1"]
    curves = {tag: [(2, 1.0), (8, 0.5)] for tag in tags} | {"validation/odd": [(2, math.nan)]}
    found = list(charts(Events(curves, {}), [], best=8))
    assert [figure.title for figure in found] == ["loss", "macro f1", "learning rate", "samples per second",
                                                  "time waiting for data"]
    assert [list(figure.keys) for figure in found] == [["train", "validation"], ["validation"], [], [], []]
    assert [figure.note for figure in found] == ["┊ best checkpoint, step 8"] * 2 + [""] * 3
    assert list(charts(Events({}, {}), [], best=None)) == []


def test_the_rates_of_groups_share_a_chart() -> None:
    curves: dict[str, Curve] = {"train/lr": [(1, 0.1), (2, 0.2)], "train/lr/head": [(1, 0.3), (2, 0.4)]}
    (figure,) = charts(Events(curves, {}), [], None)
    assert (figure.title, [*figure.keys]) == ("learning rate", ["train", "head"])


def test_the_table_of_evaluations_has_a_row_for_each_step() -> None:
    """A metric may be missing at a step, for example after the config has changed."""
    curves = {"train/loss": [(1, 9.0)], "validation/loss": [(3, 0.5), (6, 0.25)], "validation/macro_f1": [(6, 1.0)]}
    table = validations(Events(curves, {}), [("head", 0, 3), ("all", 3, 1200)], {"step": 6})
    assert cells(table) == ["3", "head", "0.5", "", "", "6", "all", "0.25", "1", "best"]
    assert "<th>macro f1</th>" in table
    assert validations(Events({"train/loss": [(1, 9.0)]}, {}), [], {}) == ""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def test_an_evaluation_has_its_metrics_and_plots(run: RunDir) -> None:
    """A single plot stands beside the metrics; worst samples are as wide as the page."""
    folder = run.path / "evaluation" / "test-1200"
    folder.mkdir(parents=True)
    (folder / "metrics.txt").write_text("loss  0.1 < 0.2\n")
    for name in ("worst_samples", "confusion"):
        (folder / f"{name}.png").write_bytes(png())
    text = "".join(evaluations(run))
    assert "<h3>test, step 1200</h3>" in text
    assert "<pre>loss  0.1 &lt; 0.2</pre>" in text
    assert re.findall(r'<figure class="(\w+)">', text)[-2:] == ["plot", "wide"]
    assert text.index("<pre>") > text.index("<figure")


def test_the_heading_of_metrics_becomes_the_title(run: RunDir) -> None:
    folder = run.path / "evaluation" / "test-9"
    folder.mkdir(parents=True)
    (folder / "metrics.txt").write_text("test set of my-run, best checkpoint, step 9: 4 samples\n\nloss  0.1\n")
    text = "".join(evaluations(run))
    assert "<h3>test set, best checkpoint, step 9: 4 samples</h3>" in text
    assert "my-run" not in text


def test_long_metrics_are_folded_and_empty_folders_are_left_out(run: RunDir) -> None:
    for name, lines in (("a-1", 41), ("b-2", 42)):
        (run.path / "evaluation" / name).mkdir(parents=True)
        (run.path / "evaluation" / name / "metrics.txt").write_text("line\n" * lines)
    (run.path / "evaluation" / "c-3").mkdir()
    (run.path / "evaluation" / "notes.txt").write_text("no folder")
    text = "".join(evaluations(run))
    assert re.findall(r"<h3>(.*?)</h3>|<summary>(.*?)</summary>", text) == [
        ("a, step 1", ""), ("b, step 2", ""), ("", "metrics")]


def test_training_samples_come_first_and_other_images_are_wide() -> None:
    found = {"validation/worst_samples": EventImage(3, png()), "train/head": EventImage(1200, png()),
             "train/all": EventImage(7, png())}
    assert [(figure.title, figure.note, figure.kind) for figure in images(Events({}, found))] == [
        ("training samples: all", "step 7", ""), ("training samples: head", "step 1,200", ""),
        ("validation: worst samples", "step 3", "wide")]
