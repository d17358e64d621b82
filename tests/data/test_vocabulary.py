"""The vocabulary: exact numbers, built once, and pretrained vectors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

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
    with pytest.raises(ValueError, match=r"other\.json does not tell which word stands for padding; name one"):
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


def written(file: Path, texts: list[str]) -> str:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


@pytest.mark.parametrize(("text", "words"), [
    ("这部电影很好", ["这", "部", "电", "影", "很", "好"]),
    ("カメラを2台", ["カ", "メ", "ラ", "を", "2", "台"]),
    ("ที่ดี", ["ที่", "ดี"]),
    ("한국어 문장 नमस्ते", ["한국어", "문장", "नमस्ते"]),
    ("GPT4很naïve e\u0301t\u0301!", ["gpt4", "很", "naïve", "e\u0301t\u0301", "!"]),
])
def test_scripts_without_spaces_are_split_into_letters(text: str, words: list[str], tmp_path: Path) -> None:
    """Formerly a whole sentence was a word, and unknown in every other text."""
    vocabulary = Vocabulary(file=written(tmp_path / "a.jsonl", [text, text]))
    assert [vocabulary.words()[number] for number in vocabulary.encode(text)] == words


def hugging_face(kind: str, folder: Path) -> Tokenizer:
    """A trained tokenizer like those of well-known models, written to `tokenizer.json`."""
    texts = ["The quick brown fox jumps over the lazy dog.", "Sphinx of black quartz, hear my vow!"] * 5
    if kind == "BERT":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(
            vocab_size=200, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False))
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    elif kind == "GPT-2":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.train_from_iterator(texts, trainers.UnigramTrainer(
            vocab_size=100, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.mark.parametrize(("kind", "padding", "unknown"), [("BERT", 0, 1), ("T5", 0, 2), ("GPT-2", 0, None)])
def test_a_tokenizer_of_hugging_face_gives_the_librarys_numbers(kind: str, padding: int, unknown: int | None,
                                                                tmp_path: Path) -> None:
    tokenizer = hugging_face(kind, tmp_path)
    texts = ["The fox vows.", "日本 ☃ quartz", "jumps"]
    word = {"padding": "<|endoftext|>"} if kind == "GPT-2" else {}
    vocabulary = Vocabulary(file=str(tmp_path / "tokenizer.json"), **word)  # type: ignore[arg-type]
    numbers, lengths = vocabulary.encode_all(texts)
    expected = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    assert lengths.tolist() == list(map(len, expected))
    assert numbers.tolist() == [number for row in expected for number in row]
    assert (vocabulary.padding, vocabulary.unknown, vocabulary.size) == (padding, unknown, tokenizer.get_vocab_size())
    assert len(vocabulary.encode("")) >= 1
    again = Vocabulary(file=vocabulary.file, **word)  # type: ignore[arg-type]
    again.save(str(tmp_path / "saved.json"))
    kept = Vocabulary(file=str(tmp_path / "saved.json"))
    assert (kept.padding, kept.fingerprint) == (padding, vocabulary.fingerprint)


def test_padding_must_be_told(tmp_path: Path) -> None:
    hugging_face("GPT-2", tmp_path)
    with pytest.raises(ValueError, match=r"does not tell which word stands for padding; .* padding: '<\|endoftext\|>'"):
        Vocabulary(file=str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"does not tell which word stands for padding"):
        Vocabulary(file=str(tmp_path / "tokenizer.json"), padding="<none>")
