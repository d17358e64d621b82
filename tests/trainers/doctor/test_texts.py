"""Planted faults in tables of texts."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from drumbeat.data.splits import Split, underlying
from drumbeat.data.text import Texts, Vocabulary
from drumbeat.trainers.doctor.findings import Finding
from drumbeat.trainers.doctor.subject import Subject
from drumbeat.trainers.doctor.texts import encoding_findings, length_facts, text_findings
from tests.trainers.doctor.sets import kinds

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]


def table(path: Path, texts: list[str], encoding: str = "utf-8") -> Path:
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([("text", "label"), *((text, str(number % 2)) for number, text in enumerate(texts))])
    return path


def sentences(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, 6)) for _ in range(count)]


def texts(file: Path, words: Path, **options: int) -> Texts:
    return Texts(file=str(file), labels="label", vocabulary=Vocabulary(file=str(words)), **options)  # type: ignore[arg-type]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return table(tmp_path / "train.csv", sentences(40))


def findings(samples: object) -> dict[str, Finding]:
    return kinds(text_findings(Subject("train", samples), everything=False))  # type: ignore[arg-type]


def test_healthy_texts(train: Path) -> None:
    samples = texts(train, train, max_length=10)
    assert findings(samples) == {}
    assert list(encoding_findings([Subject("train", samples)])) == []
    assert length_facts(samples.lengths) == "median 6, 95 % up to 6, longest 6"


def test_texts_of_another_language(train: Path, tmp_path: Path) -> None:
    """A quarter of the words is unknown."""
    other = table(tmp_path / "other.csv", sentences(30, 1) + ["der schnelle braune Fuchs springt faul"] * 10)
    found = findings(texts(other, train))
    assert list(found) == ["unknown_words", "no_known_word"]
    assert found["unknown_words"].text == "25% of the words of train are not in the vocabulary"
    assert found["no_known_word"].text == "10 of 40 texts of train have no known word"
    assert found["no_known_word"].examples[0] == "train row 30 of other.csv"


def test_a_script_without_spaces(train: Path, tmp_path: Path) -> None:
    """Its letters are its words, so what another vocabulary does not know are those that differ."""
    lines = [f"我喜歡第{chr(0x4e00 + number)}號電影因為它很好看" for number in range(20)]
    other = table(tmp_path / "chinese.csv", lines)
    assert "unknown_words" not in findings(texts(other, other))
    assert findings(texts(other, train))["unknown_words"].text == "100% of the words of train are not in the vocabulary"


def test_empty_texts(train: Path, tmp_path: Path) -> None:
    """Also in a part of a set, whose rows are named as those of the file."""
    lines = sentences(40)
    lines[7], lines[23] = "", "  "
    samples = texts(table(tmp_path / "holes.csv", lines), train)
    assert findings(samples)["no_known_word"].examples == ["train row 7 of holes.csv", "train row 23 of holes.csv"]
    part = Split(of=samples, part="a", fractions={"a": 0.5, "b": 0.5})
    found = underlying(part, Texts)
    assert found is not None
    rows = [row for row in (7, 23) if row in part.indices]
    assert found[1].tolist() == part.indices.tolist()
    assert [f"train row {row} of holes.csv" for row in rows] == list(
        findings(part)["no_known_word"].examples if rows else [])


@pytest.mark.parametrize(("long", "severity"), [(4, "note"), (20, "warning")])
def test_texts_that_are_cut(train: Path, tmp_path: Path, long: int, severity: str) -> None:
    lines = sentences(40 - long) + [" ".join(sentences(5, 2))] * long
    found = findings(texts(table(tmp_path / "long.csv", lines), train, max_length=10))
    assert list(found) == ["cut_texts"]
    assert found["cut_texts"].severity == severity
    assert found["cut_texts"].text == f"{long} of 40 texts of train ({long / 40:.0%}) are cut to 10 words"
    lost = 20 * long / (6 * (40 - long) + 30 * long)
    assert found["cut_texts"].advice.startswith(f"{lost:.0%} of all words are lost.")


@pytest.mark.parametrize(("text", "wrong"), [
    ("Grüße".encode().decode("latin-1"), "Latin-1"), ("Straße".encode().decode("cp1252"), "Windows-1252"),
    ("it\u2019s".encode().decode("cp1252"), "Windows-1252"), ("Gr\ufffd\ufffde", "U+FFFD")])
def test_text_that_was_decoded_wrongly(tmp_path: Path, train: Path, text: str, wrong: str) -> None:
    file = table(tmp_path / "wrong.csv", [*sentences(5), text])
    (found,) = encoding_findings([Subject("train", texts(file, train)), Subject("test", texts(train, train))])
    assert found.text.startswith("wrong.csv has text that was decoded wrongly: ")
    assert wrong in found.examples[0]


def test_correct_text_is_not_garbled(tmp_path: Path, train: Path) -> None:
    file = table(tmp_path / "right.csv", ["Grüße, Straße, São Paulo, Ângela, it\u2019s 5 €, Ærø, ÃO", "naïve café"])
    assert list(encoding_findings([Subject("train", texts(file, train))])) == []


def test_other_sets_have_no_texts() -> None:
    assert underlying([1, 2], Texts) is None
    assert findings([1, 2]) == {}
