"""The variants of the text workloads, by config alone:
training, evaluation and inference, on synthetic and on real texts."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest

from drumbeat.configs.load import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.data.demo.sets import TOPICS, _story
from drumbeat.trainers.commands.evaluate import build_job, run_job
from drumbeat.trainers.inference.predictor import Predictor
from drumbeat.trainers.world import join
from tests.workloads import train

pytestmark = pytest.mark.slow

HEADER = " ".join(re.sub(r"^#\s*", "", line) for line in (ROOT / "configs" / "lstm_news.yaml").read_text().splitlines()
                  if line.startswith("#"))
VARIANTS = {
    "fixed length": "data.train.of.length=50 data.validation.of.length=50 data.test.length=50",
    "one topic": "task._target_=drumbeat.trainers.tasks.Classification data.train.of.labels=topic "
                 "data.validation.of.labels=topic data.test.labels=topic",
    "one output": "task._target_=drumbeat.trainers.tasks.Classification model.classes=1 data.train.of.labels=mood "
                  "data.validation.of.labels=mood data.test.labels=mood",
}
"""As written in the header of lstm_news."""

SMALL = ["batch_size=32", "model.embedding_dim=32", "model.hidden_size=32", "phases.train.optimizer.lr=1e-2",
         "phases.train.epochs=8"]

Row = tuple[str, str]
"""A text, and what it is about."""


def write(folder: Path, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Three quarters of the rows to train on, the others to test; the first half of the names are of good mood."""
    good = names[:len(names) // 2]
    folder.mkdir(parents=True)
    for name, part in (("train", [row for number, row in enumerate(rows) if number % 4]), ("test", rows[::4])):
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["id", "content", *names, "topic", "mood"])
            table.writerows([number, text, *(int(about == one) for one in names), about,
                             "good" if about in good else "bad"] for number, (text, about) in enumerate(part))


def synthetic() -> list[Row]:
    """Stories, each about one of four topics."""
    random = np.random.default_rng(0)
    return [(_story(random, [about]), TOPICS[about]) for about in random.integers(4, size=900).tolist()]


def real() -> list[Row]:
    """Paragraphs of Python's own documentation, of the licences that Pillow ships, of fonttools' list of changes."""
    licences = next(file for file in distribution("pillow").files or [] if file.name == "LICENSE").read_text("utf-8")
    changes = distribution("fonttools").read_text("METADATA") or ""
    rows = [[(paragraph, name) for paragraph in text[:50_000].split(between) if len(paragraph.split()) > 8]
            for name, text, between in (("documentation", "\n\n".join(topics.values()), "\n\n"),
                                        ("licence", licences, "\n\n"),
                                        ("changes", changes.partition("Changelog")[2] or changes, "\n- "))]
    return [row for three in zip(*rows, strict=False) for row in three]  # the same number of each


SOURCES = {"synthetic": (synthetic, TOPICS), "real": (real, ("documentation", "licence", "changes"))}


def trained(variant: str, source: str, folder: Path) -> RunDir:
    """A run of a variant of lstm_news, smaller and on other files."""
    rows, names = SOURCES[source]
    write(folder / "datasets" / "news", rows(), names)
    labels = [] if "labels" in VARIANTS[variant] else [
        f"data.{one}.labels=[{', '.join(names)}]" for one in ("train.of", "validation.of", "test")]
    train("lstm_news", [*VARIANTS[variant].split(), *SMALL, *labels], folder)
    return RunDir(next((folder / "runs" / "lstm_news").glob("2*")))


def accuracy(run: RunDir) -> float:
    """Accuracy on the test set, as `drumbeat evaluate` computes it."""
    job = build_job(run, "test", None)
    with join("cpu") as world:
        return job.task.metrics(run_job(job, world))["accuracy"]


def test_the_variants_are_those_of_the_header() -> None:
    assert all(variant in HEADER for variant in VARIANTS.values())


@pytest.mark.parametrize(("source", "minimum"), [("synthetic", 0.5), ("real", 0.65)])
def test_fixed_length(source: str, minimum: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All texts have 50 words. Accuracy counts a text only if all of its labels are correct, so
    predicting none scores 0."""
    monkeypatch.chdir(tmp_path)
    run = trained("fixed length", source, tmp_path)
    (ids, lengths), targets = build_job(run, "test", None).samples.fetch(np.arange(20))  # type: ignore[attr-defined]
    assert ids.shape == (20, 50)
    assert lengths.min() < 50 == lengths.max()
    assert targets.shape == (20, len(SOURCES[source][1]))
    assert (reached := accuracy(run)) > minimum, reached


@pytest.mark.parametrize(("source", "minimum"), [("synthetic", 0.6), ("real", 0.7)])
def test_one_topic_a_text(source: str, minimum: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes are the names in a column; chance is a quarter and a third."""
    monkeypatch.chdir(tmp_path)
    run = trained("one topic", source, tmp_path)
    assert (reached := accuracy(run)) > minimum, reached
    (prediction,) = Predictor.from_run(run.path)(["goal"])
    assert list(prediction.values) == sorted(SOURCES[source][1])
    assert sum(prediction.values.values()) == pytest.approx(1)


@pytest.mark.parametrize(("source", "minimum"), [("synthetic", 0.7), ("real", 0.8)])
def test_good_or_bad_from_one_output(source: str, minimum: float, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the synthetic texts are good, and a third of the real ones."""
    monkeypatch.chdir(tmp_path)
    run = trained("one output", source, tmp_path)
    assert (reached := accuracy(run)) > minimum, reached
    predictor = Predictor.from_run(run.path)
    assert predictor.model.get_parameter("head.weight").shape[0] == 1
    (prediction,) = predictor(["goal"])
    assert list(prediction.values) == ["bad", "good"]
    assert sum(prediction.values.values()) == pytest.approx(1)
