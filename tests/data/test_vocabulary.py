"""The vocabulary: exact numbers, built once, and pretrained vectors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models

import drumbeat.data.vocabulary
from drumbeat.data.vocabulary import Vocabulary, glove
from tests.data.reviews import NUMBERS


def test_words_are_numbered_by_frequency_and_ties_by_the_word(vocabulary: Vocabulary) -> None:
    assert vocabulary.words() == NUMBERS
    assert vocabulary.size == 7
    assert (vocabulary.padding, vocabulary.unknown, vocabulary.start, vocabulary.end) == (0, 1, None, None)
    ids = vocabulary.encode("The CAT, the <pad> dog")
    assert ids.dtype == np.int32
    assert ids.tolist() == [3, 2, 1, 3, 1, 1, 1, 6]
    assert vocabulary.encode("").tolist() == vocabulary.encode(" \n").tolist() == [1]


def test_the_words_of_a_vocabulary_can_be_limited(file: str) -> None:
    assert Vocabulary(file=file, max_words=2).words() == ["<pad>", "<unk>", "cat", "the"]
    assert Vocabulary(file=file, min_frequency=3).words() == ["<pad>", "<unk>", "cat", "the"]
    assert Vocabulary(file=file, lower=False).words() == ["<pad>", "<unk>", "cat", "\"", "The", "a", "dog"]
    assert Vocabulary(file=file, min_frequency=1).size == 13


def test_texts_can_have_start_and_end_words(file: str) -> None:
    vocabulary = Vocabulary(file=file, start_and_end=True)
    assert vocabulary.words()[:5] == ["<pad>", "<unk>", "<start>", "<end>", "cat"]
    assert vocabulary.encode("cat <end>").tolist() == [2, 4, 1, 1, 1, 3]
    assert vocabulary.encode("").tolist() == [2, 1, 3]


def test_the_same_file_gives_the_same_bytes(file: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        Vocabulary(file=file, cache=str(tmp_path / name), min_frequency=1)
    one, two = (next((tmp_path / name).glob("*.vocabulary")) / "tokenizer.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_vocabulary_is_built_once(file: str, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drumbeat.data.vocabulary, "_learn", None)
    again = Vocabulary(file=file)
    assert again.fingerprint == vocabulary.fingerprint
    assert again.file == vocabulary.file


def test_a_saved_tokenizer_is_used_as_it_is(vocabulary: Vocabulary, tmp_path: Path) -> None:
    vocabulary.save(str(tmp_path / "mine.json"))
    assert Vocabulary(file=str(tmp_path / "mine.json")).fingerprint == vocabulary.fingerprint
    assert pickle.loads(pickle.dumps(vocabulary)).encode("a cat").tolist() == [5, 2]
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "other.json"))
    with pytest.raises(ValueError, match=r"other\.json has no <pad> or \[PAD\] in its vocabulary; add one"):
        Vocabulary(file=str(tmp_path / "other.json"))
    (tmp_path / "broken.json").write_text("{\n")
    with pytest.raises(ValueError, match=r"broken\.json is not a tokenizer\.json"):
        Vocabulary(file=str(tmp_path / "broken.json"))


def test_an_empty_vocabulary_is_reported(file: str) -> None:
    with pytest.raises(ValueError, match=r"train\.csv, column 'text': no word occurs 9 times; lower min_frequency"):
        Vocabulary(file=file, min_frequency=9)
    with pytest.raises(ValueError, match=r"train\.csv, line 1: there is no column 'texts'; did you mean 'text'\?"):
        Vocabulary(file=file, text="texts")
    with pytest.raises(FileNotFoundError, match=r"the file /nowhere\.csv does not exist"):
        Vocabulary(file="/nowhere.csv")


# Vectors that others have learnt


@pytest.mark.parametrize("heading", ["", "6 2\n"])
def test_vectors_are_read_for_the_words_of_the_vocabulary(heading: str, vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(f"{heading}of 9 9\n\" . 9 9\ncat 1 2\n<unk> 9 9\nzebra 9 9\ncat dog 9 9\ndog 0.5 -1e-1\ncat 9 9\n")
    values, found, coverage = glove(str(path), vocabulary)
    assert values.equal(torch.tensor([[0, 0], [0, 0], [1, 2], [0, 0], [0, 0], [0, 0], [0.5, -0.1]]))
    assert values.dtype == torch.float32
    assert found.tolist() == [False, False, True, False, False, False, True]
    assert coverage == 2 / 5


def test_a_damaged_line_of_vectors_is_reported(vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2\ncat 1 x\n")
    with pytest.raises(ValueError, match=r"vectors\.txt, line 2: expected a word and 2 numbers, not 'cat 1 x'"):
        glove(str(path), vocabulary)
    path.write_text("the 1 2\ncat 1\n")
    with pytest.raises(ValueError, match=r"vectors\.txt, line 2: expected a word and 2 numbers, not 'cat 1'"):
        glove(str(path), vocabulary)
    path.write_text("")
    with pytest.raises(ValueError, match="holds no vectors"):
        glove(str(path), vocabulary)


@pytest.mark.parametrize(("change", "message"), [
    ({"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "zz", "type_id": 0}}],
                         "pair": [], "special_tokens": {}}}, "is not a tokenizer.json: no entry found"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "is not a tokenizer.json: Precompiled"),
    ({"model": {"type": "WordLevel", "vocab": {"<pad>": 0, "<unk>": 1, "a": 2**32 - 1}, "unk_token": "<unk>"}},
     "numbers a word 4,294,967,295"),
    ({"model": {"type": "WordLevel", "vocab": {}, "unk_token": "<unk>"}}, "is not a tokenizer.json: WordLevel error"),
], ids=["panic", "panic in the file", "number", "empty"])
def test_a_hostile_tokenizer_is_an_error(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """tokenizers raises PanicException, which is no Exception; and one word of number 2^32 would take 34 GB."""
    vocab = {"<pad>": 0, "<unk>": 1, "a": 2}
    whole = json.loads(Tokenizer(models.WordLevel(vocab, unk_token="<unk>")).to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole | change, indent=1))
    with pytest.raises(ValueError, match=message):
        Vocabulary(file=str(tmp_path / "tokenizer.json"))


def test_a_tokenizer_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match=r"is not a tokenizer.json: it is not UTF-8"):
        Vocabulary(file=str(tmp_path / "tokenizer.json"))


def test_vectors_without_line_breaks_are_refused(vocabulary: Vocabulary, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_bytes(b"cat" + b" 1" * 20_000)
    with pytest.raises(ValueError, match=r"v\.txt, line 1: vectors of 20,000 numbers; the most are 16,384"):
        glove(str(tmp_path / "v.txt"), vocabulary)
    (tmp_path / "v.txt").write_bytes(b"cat" + b" 1" * 1_000_000)
    with pytest.raises(ValueError, match=r"v\.txt, line 1 is longer than 1 MB; it is not a file of vectors"):
        glove(str(tmp_path / "v.txt"), vocabulary)
