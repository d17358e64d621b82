"""Texts: exact word numbers from every format, in batches, loaders and pickles."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drumbeat.data.loader import BatchFetcher, batches
from drumbeat.data.text import Texts, Vocabulary, padding_waste
from tests.data.reviews import IDS, ROWS, rows_of, same, write


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_rows_are_numbers_whatever_the_format(suffix: str, vocabulary: Vocabulary, tmp_path: Path) -> None:
    texts = Texts(file=write(tmp_path / f"set.{suffix}", ROWS), vocabulary=vocabulary, labels="label", id="id")
    assert rows_of(texts) == IDS
    assert texts.classes == ["neg", "neutral", "pos"]
    assert texts.labels is not None
    assert texts.labels.dtype == texts.lengths.dtype == np.int64
    assert texts.labels.tolist() == [2, 0, 2, 1]
    assert texts.lengths.tolist() == [7, 10, 1, 1]
    assert texts.names() == ["r1", "r2", "r3", "r4"]
    assert texts.facts == {"vocab_size": 7, "classes": 3, "padding_idx": 0}


def test_tabs_separate_and_quotes_are_text_by_default(vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "set.tsv"
    path.write_text('text\tlabel\n"cat, dog\tpos\n"\tneg\n')
    texts = Texts(file=str(path), vocabulary=vocabulary, labels="label")
    assert rows_of(texts) == [[4, 2, 1, 6], [4]]
    path.write_text('text\tlabel\n"cat\n\tdog"\tpos\n')
    assert rows_of(Texts(file=str(path), vocabulary=vocabulary, labels="label", quoted=True)) == [[2, 6]]


def test_a_batch_is_padded_to_its_longest_text(file: str, vocabulary: Vocabulary) -> None:
    texts = Texts(file=file, vocabulary=vocabulary, labels="label")
    (ids, lengths), targets = texts.fetch(np.array([2, 0]))
    assert ids.tolist() == [[1, 0, 0, 0, 0, 0, 0], IDS[0]]
    assert (lengths.tolist(), targets.tolist()) == ([1, 7], [2, 2])
    assert ids.dtype == lengths.dtype == targets.dtype == torch.int64
    (one, length), target = texts[3]
    assert (one.tolist(), length.item(), target.item()) == ([1], 1, 1)
    assert (length.shape, target.shape) == ((), ())
    for wrong in (-1, 4):
        with pytest.raises(IndexError, match=f"rows {wrong} to {wrong} are not all in 0 to 3"):
            texts[wrong]


def test_texts_are_truncated_and_padded(file: str, vocabulary: Vocabulary) -> None:
    cut = Texts(file=file, vocabulary=vocabulary, labels="label", max_length=4)
    assert rows_of(cut) == [row[:4] for row in IDS]
    assert cut.lengths.tolist() == [4, 4, 1, 1]
    padded = Texts(file=file, vocabulary=vocabulary, labels="label", length=8)
    (ids, lengths), _ = padded.fetch(np.arange(4))
    assert ids.tolist() == [(row + [0] * 8)[:8] for row in IDS]
    assert lengths.tolist() == padded.lengths.tolist() == [7, 8, 1, 1]
    assert cut.folder == padded.folder, "the store holds whole texts"


def test_json_keeps_its_types(vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "cat", "label": 3, "spam": true}\n{"spam": false, "label": 12, "text": 7}')
    assert Texts(file=str(path), vocabulary=vocabulary, labels="label").classes == ["3", "12"]
    assert Texts(file=str(path), vocabulary=vocabulary, labels=["spam"]).fetch(np.arange(2))[1].tolist() == [[1], [0]]


def test_fingerprints_depend_on_what_a_set_was_made_from(file: str, vocabulary: Vocabulary, tmp_path: Path) -> None:
    texts = Texts(file=file, vocabulary=vocabulary, labels="label")
    copied = Texts(file=shutil.copy(file, str(tmp_path / "copy.csv")), vocabulary=vocabulary, labels="label")
    others = [Texts(file=file, vocabulary=vocabulary, labels="label", max_length=4),
              Texts(file=file, vocabulary=vocabulary, labels="id"),
              Texts(file=file, vocabulary=Vocabulary(file=file, max_words=3), labels="label")]
    assert copied.folder != texts.folder
    assert copied.fingerprint() == texts.fingerprint()
    assert len({texts.fingerprint()["files"], *(other.fingerprint()["files"] for other in others)}) == 4


def test_names_may_be_any_text(vocabulary: Vocabulary, tmp_path: Path) -> None:
    names = ["two\nlines", "é \u2028 \"", "", "x"]
    file = write(tmp_path / "set.csv", [(name, "cat", "pos") for name in names])
    assert Texts(file=file, vocabulary=vocabulary, labels=None, id="id").names() == names


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_fetch_the_same(file: str, vocabulary: Vocabulary, workers: int) -> None:
    texts = Texts(file=file, vocabulary=vocabulary, labels="label")
    loader = batches(BatchFetcher(texts, indices=lambda p: p), [[0, 2], [3], [1, 0]], workers=workers, pin_memory=False)
    for batch, rows in zip(loader, ([0, 2], [3], [1, 0]), strict=True):
        assert same((batch.inputs, batch.targets), texts.fetch(np.array(rows)))


def test_a_pickle_maps_the_store_again(file: str, vocabulary: Vocabulary) -> None:
    texts = Texts(file=file, vocabulary=vocabulary, labels="label")
    assert texts.lengths.sum() == 19
    state = texts.__getstate__()
    assert not [name for name, value in state.items() if isinstance(value, np.ndarray)]
    assert same(pickle.loads(pickle.dumps(texts)).fetch(np.arange(4)), texts.fetch(np.arange(4)))


@pytest.mark.parametrize(("wrong", "message"), [
    ({"length": 8, "max_length": 8}, "give either length=8 (truncate and pad) or max_length=8 (truncate)"),
    ({"length": 0}, "a text has at least 1 words, including the start and end words; it cannot be truncated to 0"),
])
def test_contradicting_arguments_are_rejected(wrong: dict[str, Any], message: str, file: str,
                                                       vocabulary: Vocabulary) -> None:
    with pytest.raises(ValueError) as error:
        Texts(**{"file": file, "vocabulary": vocabulary, "labels": "label", **wrong})
    assert str(error.value) == message


def test_truncation_keeps_the_end_word(file: str) -> None:
    vocabulary = Vocabulary(file=file, start_and_end=True)
    cut = Texts(file=file, vocabulary=vocabulary, labels=None, length=3)
    assert rows_of(cut) == [[2, 5, 3], [2, 7, 3], [2, 1, 3], [2, 1, 3]]
    with pytest.raises(ValueError, match="at least 3 words, including the start and end words"):
        Texts(file=file, vocabulary=vocabulary, labels=None, max_length=2)


def test_padding_waste_is_the_fraction_of_padding() -> None:
    lengths = np.array([1, 3, 4, 4])
    assert padding_waste(lengths, [np.array([0, 1]), np.array([2, 3])]) == 2 / 14
    assert padding_waste(lengths, [np.array([1]), np.array([2, 3])]) == 0
    assert padding_waste(lengths, []) == 0


def test_unknown_words_and_cut_texts_are_told(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text\n" + "good film\n" * 9 + "bad film\n" * 2)
    (tmp_path / "test.csv").write_text("text\ngood film\nsplendid movie of the year\n")
    vocabulary = Vocabulary(file=str(tmp_path / "train.csv"))
    assert Texts(file=str(tmp_path / "train.csv"), vocabulary=vocabulary, labels=None).notes() == []
    test = Texts(file=str(tmp_path / "test.csv"), vocabulary=vocabulary, labels=None, max_length=3)
    assert test.notes() == [
        "71% of the words are not in the vocabulary, and the model cannot tell them apart",
        "1 of 2 texts are cut after 3 words, which leaves out 28.6% of all words"]


def test_labels_in_one_cell(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,tags\na a,x|y\na,\na,y\n")
    vocabulary = Vocabulary(file=str(tmp_path / "train.csv"))
    texts = Texts(file=str(tmp_path / "train.csv"), vocabulary=vocabulary, labels="tags", separator="|")
    assert (texts.classes, texts.fetch(np.arange(3))[1].tolist()) == (["x", "y"], [[1, 1], [0, 0], [0, 1]])
