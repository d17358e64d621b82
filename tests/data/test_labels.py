"""Labels: targets, and the lines of invalid ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drumbeat.data.text import Texts, Vocabulary
from tests.data.reviews import ROWS, write


def test_labels_of_several_columns_of_numbers_and_none(vocabulary: Vocabulary, tmp_path: Path) -> None:
    file = write(tmp_path / "set.csv", [("cat", "1", "0", "2.5"), ("dog", "0.0", "True", "-1e3")], ("text", *"abc"))
    many = Texts(file=file, vocabulary=vocabulary, labels=["b", "a"])
    assert many.fetch(np.array([0, 1]))[1].equal(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert many.classes == ["b", "a"]
    assert many.labels is None
    number = Texts(file=file, vocabulary=vocabulary, labels="c", numeric=True)
    assert number.fetch(np.array([1, 0]))[1].equal(torch.tensor([[-1000.0], [2.5]]))
    assert number[0][1].equal(torch.tensor([2.5]))
    assert number.facts["classes"] == 1
    assert number.classes == []
    none = Texts(file=file, vocabulary=vocabulary, labels=None)
    assert none.fetch(np.array([1, 0]))[1].equal(torch.tensor([-1, -1]))
    assert none.names() == ["0", "1"]


def test_classes_that_are_numbers_are_sorted_by_value(vocabulary: Vocabulary, tmp_path: Path) -> None:
    file = write(tmp_path / "set.csv", [("", "", label) for label in ("10", "9", "-1", "9")])
    texts = Texts(file=file, vocabulary=vocabulary, labels="label")
    assert texts.classes == ["-1", "9", "10"]
    assert texts.fetch(np.arange(4))[1].tolist() == [2, 1, 0, 1]


def test_class_numbers_do_not_depend_on_the_classes_in_a_file(vocabulary: Vocabulary, tmp_path: Path) -> None:
    file = write(tmp_path / "validation.csv", ROWS[:1])
    texts = Texts(file=file, vocabulary=vocabulary, labels="label", classes=["neg", "neutral", "pos"])
    assert texts.fetch(np.array([0]))[1].tolist() == [2]
    with pytest.raises(ValueError, match=r"line 2, column 'label': the class 'pos' is not among neg, neutral; add it"):
        Texts(file=file, vocabulary=vocabulary, labels="label", classes=["neg", "neutral"])


@pytest.mark.parametrize(("wrong", "message"), [
    ({"labels": None, "numeric": True}, "numeric=True needs one column or more as labels, not None"),
    ({"labels": ["label"], "classes": ["a"]}, "classes needs one column of labels that are not numeric"),
    ({"labels": []}, "labels=[] names no column; for a dataset without labels write labels=None"),
    ({"classes": ["pos", "neg", "pos"]}, "classes has duplicates: pos, neg, pos"),
])
def test_contradicting_arguments_are_rejected(wrong: dict[str, Any], message: str, file: str,
                                                       vocabulary: Vocabulary) -> None:
    with pytest.raises(ValueError) as error:
        Texts(**{"file": file, "vocabulary": vocabulary, "labels": "label", **wrong})
    assert str(error.value) == message


@pytest.mark.parametrize(("labels", "numeric", "message"), [
    (["a", "b"], False, "line 5, column 'b': '2' is not 0 or 1; for one column of class names write labels: b"),
    ("c", True, "line 4, column 'c': '' is not a number; "
                "correct it, remove the row, or leave numeric out if these are names of classes"),
    ("d", True, "line 2, column 'd': 'nan' is not a number; "
                "correct it, remove the row, or leave numeric out if these are names of classes"),
    ("e", True, "line 5, column 'e': '1e99' is not a number; "
                "correct it, remove the row, or leave numeric out if these are names of classes"),
])
def test_invalid_labels_are_reported(labels: Any, numeric: bool, message: str, vocabulary: Vocabulary,
                                     tmp_path: Path) -> None:
    rows = [("two\nlines", "1", "1", "-1", "nan", "0"), ("x", "0", "0", "", "0", "0"), ("y", "0", "2", "", "0", "1e99")]
    file = write(tmp_path / "a.csv", rows, ("text", *"abcde"))
    with pytest.raises(ValueError) as error:
        Texts(file=file, vocabulary=vocabulary, labels=labels, numeric=numeric)
    assert str(error.value) == f"{file}, {message}"


@pytest.mark.parametrize(("name", "content", "line"), [
    ("a.csv", b'text,label\n"a\nb",c\n\nd,\n', 5),
    ("a.jsonl", b'{"text": "a", "label": "b"}\n\n{"text": "", "label": ""}', 3),
])
def test_an_empty_label_is_reported(name: str, content: bytes, line: int, vocabulary: Vocabulary,
                                    tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        Texts(file=str(tmp_path / name), vocabulary=vocabulary, labels="label")
    assert str(error.value) == (f"{tmp_path}/{name}, line {line}, column 'label': the label is empty; "
                                "give one, or remove the row")
