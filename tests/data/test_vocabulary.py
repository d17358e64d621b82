"""Words: exact numbers, learnt once, and vectors for them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models

import drumbeat.data.vocabulary
from drumbeat.data.vocabulary import Words, glove
from tests.data.reviews import NUMBERS


def test_words_are_numbered_by_frequency_and_ties_by_the_word(words: Words) -> None:
    assert words.words() == NUMBERS
    assert words.size == 7
    assert (words.padding, words.unknown, words.start, words.end) == (0, 1, None, None)
    ids = words.encode("The CAT, the <pad> dog")
    assert ids.dtype == np.int32
    assert ids.tolist() == [3, 2, 1, 3, 1, 1, 1, 6]
    assert words.encode("").tolist() == words.encode(" \n").tolist() == [1]


def test_what_counts_as_a_word_can_be_told(file: str) -> None:
    assert Words(file=file, max_words=2).words() == ["<pad>", "<unk>", "cat", "the"]
    assert Words(file=file, min_frequency=3).words() == ["<pad>", "<unk>", "cat", "the"]
    assert Words(file=file, lower=False).words() == ["<pad>", "<unk>", "cat", "\"", "The", "a", "dog"]
    assert Words(file=file, min_frequency=1).size == 13


def test_a_text_can_be_opened_and_closed(file: str) -> None:
    words = Words(file=file, start_and_end=True)
    assert words.words()[:5] == ["<pad>", "<unk>", "<start>", "<end>", "cat"]
    assert words.encode("cat <end>").tolist() == [2, 4, 1, 1, 1, 3]
    assert words.encode("").tolist() == [2, 1, 3]


def test_the_same_file_gives_the_same_bytes(file: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        Words(file=file, cache=str(tmp_path / name), min_frequency=1)
    one, two = (next((tmp_path / name).glob("*.words")) / "tokenizer.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_vocabulary_is_learnt_once(file: str, words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drumbeat.data.vocabulary, "_learn", None)
    again = Words(file=file)
    assert again.fingerprint == words.fingerprint
    assert again.file == words.file


def test_a_saved_tokenizer_is_used_as_it_is(words: Words, tmp_path: Path) -> None:
    words.save(str(tmp_path / "mine.json"))
    assert Words(file=str(tmp_path / "mine.json")).fingerprint == words.fingerprint
    assert pickle.loads(pickle.dumps(words)).encode("a cat").tolist() == [5, 2]
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "other.json"))
    with pytest.raises(ValueError, match=r"other\.json has no <pad> or \[PAD\] in its vocabulary; add one"):
        Words(file=str(tmp_path / "other.json"))
    (tmp_path / "broken.json").write_text("{\n")
    with pytest.raises(ValueError, match=r"broken\.json is not a tokenizer\.json"):
        Words(file=str(tmp_path / "broken.json"))


def test_a_vocabulary_of_nothing_is_told(file: str) -> None:
    with pytest.raises(ValueError, match=r"train\.csv, column 'text': no word occurs 9 times; lower min_frequency"):
        Words(file=file, min_frequency=9)
    with pytest.raises(ValueError, match=r"train\.csv, line 1: there is no column 'texts'; did you mean 'text'\?"):
        Words(file=file, text="texts")
    with pytest.raises(FileNotFoundError, match=r"the file /nowhere\.csv is not there"):
        Words(file="/nowhere.csv")


# Vectors that others have learnt


@pytest.mark.parametrize("heading", ["", "6 2\n"])
def test_vectors_are_read_for_the_words_there_are(heading: str, words: Words, tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(f"{heading}of 9 9\n\" . 9 9\ncat 1 2\n<unk> 9 9\nzebra 9 9\ncat dog 9 9\ndog 0.5 -1e-1\ncat 9 9\n")
    values, found, coverage = glove(str(path), words)
    assert values.equal(torch.tensor([[0, 0], [0, 0], [1, 2], [0, 0], [0, 0], [0, 0], [0.5, -0.1]]))
    assert values.dtype == torch.float32
    assert found.tolist() == [False, False, True, False, False, False, True]
    assert coverage == 2 / 5


def test_a_broken_line_of_vectors_is_told(words: Words, tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2\ncat 1 x\n")
    with pytest.raises(ValueError, match=r"vectors\.txt, line 2: expected a word and 2 numbers, not 'cat 1 x'"):
        glove(str(path), words)
    path.write_text("the 1 2\ncat 1\n")
    with pytest.raises(ValueError, match=r"vectors\.txt, line 2: expected a word and 2 numbers, not 'cat 1'"):
        glove(str(path), words)
    path.write_text("")
    with pytest.raises(ValueError, match="holds no vectors"):
        glove(str(path), words)
