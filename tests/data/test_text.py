"""Texts: exact numbers, exact complaints, and a store that is built once, whole, by one process."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from torch import Tensor

import data.text
from data.loader import Fetch, batches
from data.text import Texts, Words, glove, padding_waste

ROWS = [("r1", "The cat sat. The cat!", "pos"), ("r2", "a dog, a \"cat\"\nand the dog", "neg"), ("r3", "", "pos"),
        ("r4", "zebra", "neutral")]
"""Under min_frequency 2: the 3, cat 3, a 2, dog 2, and the quote, which stands twice."""

NUMBERS = ["<pad>", "<unk>", "cat", "the", "\"", "a", "dog"]
IDS = [[3, 2, 1, 1, 3, 2, 1], [5, 6, 1, 5, 4, 2, 4, 1, 3, 6], [1], [1]]


def quote(field: str) -> str:
    return '"' + field.replace('"', '""') + '"'


def write(path: Path, rows: Sequence[tuple[str, ...]], heading: tuple[str, ...] = ("id", "text", "label")) -> str:
    if path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(dict(zip(heading, row, strict=True))) for row in rows))
    else:
        path.write_text("".join(",".join(map(quote, row)) + "\n" for row in [heading, *rows]))
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "train.csv", ROWS)


@pytest.fixture
def words(file: str) -> Words:
    return Words(file=file)


def rows_of(texts: Texts) -> list[list[int]]:
    return [texts[index][0][0].tolist() for index in range(len(texts))]


def same(one: tuple[tuple[Tensor, Tensor], Tensor], other: tuple[tuple[Tensor, Tensor], Tensor]) -> bool:
    return all(map(torch.equal, (*one[0], one[1]), (*other[0], other[1])))


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "about.json"}


# Words


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
    cut = Texts(file=file, words=words, labels=None, length=3)
    assert rows_of(cut) == [[2, 5, 3], [2, 7, 3], [2, 1, 3], [2, 1, 3]]
    with pytest.raises(ValueError, match="at least 3 words, those that open and close it counted"):
        Texts(file=file, words=words, labels=None, max_length=2)


def test_the_same_file_gives_the_same_bytes(file: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        Words(file=file, cache=str(tmp_path / name), min_frequency=1)
    one, two = (next((tmp_path / name).glob("*.words")) / "tokenizer.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_vocabulary_is_learnt_once(file: str, words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.text, "_learn", None)
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


# Texts


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_rows_are_numbers_whatever_the_format(suffix: str, words: Words, tmp_path: Path) -> None:
    texts = Texts(file=write(tmp_path / f"set.{suffix}", ROWS), words=words, labels="label", id="id")
    assert rows_of(texts) == IDS
    assert texts.classes == ["neg", "neutral", "pos"]
    assert texts.labels is not None
    assert texts.labels.dtype == texts.lengths.dtype == np.int64
    assert texts.labels.tolist() == [2, 0, 2, 1]
    assert texts.lengths.tolist() == [7, 10, 1, 1]
    assert texts.names() == ["r1", "r2", "r3", "r4"]
    assert texts.facts == {"vocabulary": 7, "classes": 3, "padding": 0}


def test_tabs_separate_and_quotes_are_text_unless_told(words: Words, tmp_path: Path) -> None:
    path = tmp_path / "set.tsv"
    path.write_text('text\tlabel\n"cat, dog\tpos\n"\tneg\n')
    texts = Texts(file=str(path), words=words, labels="label")
    assert rows_of(texts) == [[4, 2, 1, 6], [4]]
    path.write_text('text\tlabel\n"cat\n\tdog"\tpos\n')
    assert rows_of(Texts(file=str(path), words=words, labels="label", quoted=True)) == [[2, 6]]


def test_a_batch_is_as_wide_as_its_longest(file: str, words: Words) -> None:
    texts = Texts(file=file, words=words, labels="label")
    (ids, lengths), targets = texts.fetch(np.array([2, 0]))
    assert ids.tolist() == [[1, 0, 0, 0, 0, 0, 0], IDS[0]]
    assert (lengths.tolist(), targets.tolist()) == ([1, 7], [2, 2])
    assert ids.dtype == lengths.dtype == targets.dtype == torch.int64
    (one, length), target = texts[3]
    assert (one.tolist(), length.item(), target.item()) == ([1], 1, 1)
    assert (length.shape, target.shape) == ((), ())
    for wrong in (-1, 4):
        with pytest.raises(IndexError, match=f"rows {wrong} to {wrong} do not all lie in 0 to 3"):
            texts[wrong]


def test_texts_are_cut_and_padded(file: str, words: Words) -> None:
    cut = Texts(file=file, words=words, labels="label", max_length=4)
    assert rows_of(cut) == [row[:4] for row in IDS]
    assert cut.lengths.tolist() == [4, 4, 1, 1]
    padded = Texts(file=file, words=words, labels="label", length=8)
    (ids, lengths), _ = padded.fetch(np.arange(4))
    assert ids.tolist() == [(row + [0] * 8)[:8] for row in IDS]
    assert lengths.tolist() == padded.lengths.tolist() == [7, 8, 1, 1]
    assert cut.folder == padded.folder, "the store holds whole texts"


@pytest.mark.parametrize(("wrong", "said"), [
    ({"length": 8, "max_length": 8}, "give length=8 (cut and padded) or max_length=8 (cut), not both"),
    ({"length": 0}, "a text has at least 1 words, those that open and close it counted; it cannot be cut to 0"),
    ({"labels": ["label"], "numeric": True}, "numeric=True needs one column as labels, not ['label']"),
    ({"labels": ["label"], "classes": ["a"]}, "classes go with one column of labels that are not numeric"),
    ({"labels": []}, "labels=[] names no column; for a set without labels write labels=None"),
    ({"classes": ["pos", "neg", "pos"]}, "classes names one twice: pos, neg, pos"),
])
def test_arguments_that_do_not_go_together_are_refused(wrong: dict[str, Any], said: str, file: str,
                                                       words: Words) -> None:
    with pytest.raises(ValueError) as error:
        Texts(**{"file": file, "words": words, "labels": "label", **wrong})
    assert str(error.value) == said


def test_several_labels_a_number_or_none(words: Words, tmp_path: Path) -> None:
    file = write(tmp_path / "set.csv", [("cat", "1", "0", "2.5"), ("dog", "0.0", "True", "-1e3")], ("text", *"abc"))
    many = Texts(file=file, words=words, labels=["b", "a"])
    assert many.fetch(np.array([0, 1]))[1].equal(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert many.classes == ["b", "a"]
    assert many.labels is None
    number = Texts(file=file, words=words, labels="c", numeric=True)
    assert number.fetch(np.array([1, 0]))[1].equal(torch.tensor([[-1000.0], [2.5]]))
    assert number[0][1].equal(torch.tensor([2.5]))
    assert number.facts["classes"] == 1
    assert number.classes == []
    none = Texts(file=file, words=words, labels=None)
    assert none.fetch(np.array([1, 0]))[1].equal(torch.tensor([-1, -1]))
    assert none.names() == ["0", "1"]


def test_classes_that_are_numbers_are_sorted_by_value(words: Words, tmp_path: Path) -> None:
    file = write(tmp_path / "set.csv", [("", "", label) for label in ("10", "9", "-1", "9")])
    texts = Texts(file=file, words=words, labels="label")
    assert texts.classes == ["-1", "9", "10"]
    assert texts.fetch(np.arange(4))[1].tolist() == [2, 1, 0, 1]


def test_a_file_without_some_classes_numbers_the_others_alike(words: Words, tmp_path: Path) -> None:
    file = write(tmp_path / "validation.csv", ROWS[:1])
    texts = Texts(file=file, words=words, labels="label", classes=["neg", "neutral", "pos"])
    assert texts.fetch(np.array([0]))[1].tolist() == [2]
    with pytest.raises(ValueError, match=r"line 2, column 'label': the class 'pos' is not among neg, neutral; add it"):
        Texts(file=file, words=words, labels="label", classes=["neg", "neutral"])


def test_json_brings_its_own_types(words: Words, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "cat", "label": 3, "spam": true}\n{"spam": false, "label": 12, "text": 7}')
    assert Texts(file=str(path), words=words, labels="label").classes == ["3", "12"]
    assert Texts(file=str(path), words=words, labels=["spam"]).fetch(np.arange(2))[1].tolist() == [[1], [0]]


def test_fingerprints_tell_what_a_set_was_made_from(file: str, words: Words, tmp_path: Path) -> None:
    texts = Texts(file=file, words=words, labels="label")
    copied = Texts(file=shutil.copy(file, str(tmp_path / "copy.csv")), words=words, labels="label")
    others = [Texts(file=file, words=words, labels="label", max_length=4), Texts(file=file, words=words, labels="id"),
              Texts(file=file, words=Words(file=file, max_words=3), labels="label")]
    assert copied.folder != texts.folder
    assert copied.fingerprint == texts.fingerprint
    assert len({texts.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_fetch_the_same(file: str, words: Words, workers: int) -> None:
    texts = Texts(file=file, words=words, labels="label")
    loader = batches(Fetch(texts, indices=lambda p: p), [[0, 2], [3], [1, 0]], workers=workers, pin_memory=False)
    for batch, rows in zip(loader, ([0, 2], [3], [1, 0]), strict=True):
        assert same((batch.inputs, batch.targets), texts.fetch(np.array(rows)))


def test_a_pickle_maps_the_store_again(file: str, words: Words) -> None:
    texts = Texts(file=file, words=words, labels="label")
    assert texts.lengths.sum() == 19
    state = texts.__getstate__()
    assert not [name for name, value in state.items() if isinstance(value, np.ndarray)]
    assert same(pickle.loads(pickle.dumps(texts)).fetch(np.arange(4)), texts.fetch(np.arange(4)))


# The store


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_blocks_leave_no_trace(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / f"set.{suffix}", [(f"r{n}", "word " * (n % 7), f"c{n * n % 13}") for n in range(300)])
    words = Words(file=file)
    whole = Texts(file=file, words=words, labels="label", id="id")
    monkeypatch.setattr(data.text, "BLOCK", 100)
    parts = Texts(file=file, words=Words(file=file, cache=str(tmp_path / "parts")), labels="label", id="id",
                  cache=str(tmp_path / "parts"))
    assert parts.words.fingerprint == words.fingerprint
    assert stored(parts.folder) == stored(whole.folder)
    assert parts.names() == [f"r{n}" for n in range(300)]


def test_a_set_is_built_once_and_anew_for_a_changed_file(file: str, words: Words,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    first = Texts(file=file, words=words, labels="label")
    with monkeypatch.context() as patch:
        patch.setattr(data.text, "_build", None)
        assert same(Texts(file=file, words=words, labels="label").fetch(np.arange(4)), first.fetch(np.arange(4)))
    with open(file, "a") as more:
        more.write("r5,dog,pos\n")
    assert rows_of(Texts(file=file, words=words, labels="label")) == [*IDS, [6]]
    assert (Path(file).parent / ".drumbeat" / ".gitignore").read_text() == "*\n"


def test_where_the_folder_cannot_be_written_the_users_cache_is(file: str, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def refuse(self: Path, *given: Any, **named: Any) -> None:
        if self == tmp_path / ".drumbeat":
            raise PermissionError(13, "Permission denied", str(self))
        mkdir(self, *given, **named)

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    texts = Texts(file=file, words=Words(file=file), labels="label")
    assert texts.folder.parent == tmp_path / "mine" / "drumbeat"


def test_a_damaged_store_is_not_read(file: str, words: Words) -> None:
    folder = Texts(file=file, words=words, labels="label").folder
    os.truncate(folder / "ids", 8)
    with pytest.raises(ValueError, match=r"ids is damaged \(8 bytes\); remove .*\.texts, and it is built anew"):
        Texts(file=file, words=words, labels="label")


def in_child(work: Callable[[], None]) -> multiprocessing.process.BaseProcess:
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def test_processes_that_start_together_build_once(file: str, words: Words, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    together = multiprocessing.get_context("fork").Barrier(3)
    build = data.text._build

    def counted(*given: Any) -> None:
        with open(tmp_path / "builds", "a") as builds:
            builds.write("built\n")
        build(*given)

    def work() -> None:
        together.wait(30)
        assert rows_of(Texts(file=file, words=words, labels="label")) == IDS

    monkeypatch.setattr(data.text, "_build", counted)
    children = [in_child(work) for _ in range(3)]
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert (tmp_path / "builds").read_text() == "built\n"


@pytest.mark.parametrize("where", ["between blocks", "before the rename"])
def test_a_killed_build_leaves_nothing_to_be_taken_for_a_set(where: str, file: str, words: Words, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"

    def die(*_: Any) -> NDArray[Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def work() -> None:
        monkeypatch.setattr(data.text._Codes, "__call__" if where == "between blocks" else "finish", die)
        Texts(file=file, words=words, labels="label", cache=str(cache))

    child = in_child(work)
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert len(list(cache.glob(".*.partial"))) == 1
    assert list(cache.glob("*.texts")) == []
    texts = Texts(file=file, words=words, labels="label", cache=str(cache))
    assert rows_of(texts) == IDS
    assert stored(texts.folder) == stored(Texts(file=file, words=words, labels="label").folder)
    assert list(cache.glob(".*.partial")) == []


# What is said where something is wrong


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.csv", b"", "a.csv is empty; expected a heading and rows"),
    ("a.csv", b"text,label\n", "a.csv has a heading and no rows"),
    ("a.csv", b"text,lable\na,b\n",
     "a.csv, line 1: there is no column 'label'; did you mean 'lable'? The columns are: text, lable"),
    ("a.csv", b"text,x\na,b\n", "a.csv, line 1: there is no column 'label'; the columns are: text, x"),
    ("a.csv", b"text,label,text\na,b,c\n", "a.csv, line 1: two columns are called 'text'; rename one"),
    ("a.csv", b'text,label\n"a\n\nb",c\nd\n',
     "a.csv, line 5: 1 fields, but the heading has 2 columns (text, label); "
     "put fields that hold a separator in double quotes, or correct the line"),
    ("a.tsv", b"text\tlabel\na\tb\tc\n",
     "a.tsv, line 2: 3 fields, but the heading has 2 columns (text, label); "
     "remove separators from the fields, or set quoted=True if fields stand in double quotes"),
    ("a.csv", b'label,text\na,b\nc,"d\ne,f\n',
     "a.csv, line 3: a quote opens here and is never closed; "
     "close it, or set quoted=False if quotes are part of the text"),
    ("a.csv", b"text,label\na,b\ncaf\xe9,b\n",
     "a.csv, line 3: byte 19 of the file, 0xe9, is not UTF-8; save it as UTF-8, for instance with: "
     "iconv -f latin1 -t utf-8 a.csv"),
    ("a.csv", b"t\xe9xt,label\na,b\n",
     "a.csv, line 1: byte 2 of the file, 0xe9, is not UTF-8; save it as UTF-8, for instance with: "
     "iconv -f latin1 -t utf-8 a.csv"),
    ("a.csv", b'text,label\n"a\nb",c\n\nd,\n',
     "a.csv, line 5, column 'label': the label is empty; give one, or remove the row"),
    ("a.jsonl", b'{"text": "a", "label": "b"}\n\n{"text": "a" "label"}\n',
     "a.jsonl, line 3: this is not JSON (Expecting ',' delimiter: line 1 column 14 (char 13)); "
     "correct or remove the line"),
    ("a.jsonl", b'[{"text": "a"}]',
     "a.jsonl, line 1: this is a JSON array; expected an object on each line, as jq -c '.[]' a.jsonl writes it"),
    ("a.jsonl", b"7\n", "a.jsonl, line 1: expected a JSON object such as {\"text\": \"...\"}, not 7"),
    ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": "a"}\n',
     "a.jsonl, line 2: there is no column 'label'; the columns are: text"),
    ("a.jsonl", b'{"text": null, "label": "b"}\n',
     "a.jsonl, line 1, column 'text': None is no text; correct or remove the line"),
    ("a.jsonl", b'{"text": "a\\ud83d", "label": "b"}\n',
     "a.jsonl, line 1, column 'text': character 2 is half of a surrogate pair, '\\ud83d'; remove it"),
    ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": "\xff", "label": "b"}\n',
     "a.jsonl, line 2: byte 39 of the file, 0xff, is not UTF-8; save it as UTF-8, for instance with: "
     "iconv -f latin1 -t utf-8 a.jsonl"),
    ("a.jsonl", b"\n \n", "a.jsonl has no rows"),
    ("a.parquet", b"PAR1", "a.parquet is no file of texts that can be read: .csv, .tsv, .json, .jsonl, .ndjson"),
])
def test_what_is_wrong_in_a_file_is_told(name: str, content: bytes, said: str, words: Words, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        Texts(file=str(tmp_path / name), words=words, labels="label")
    assert str(error.value) == f"{tmp_path}/{said}"
    assert not [path for path in (tmp_path / ".drumbeat").iterdir() if path.suffix in (".texts", ".partial")]


@pytest.mark.parametrize(("labels", "numeric", "said"), [
    (["a", "b"], False, "line 5, column 'b': '2' is not 0 or 1; for one column of class names write labels: b"),
    ("c", True, "line 4, column 'c': '' is not a number; "
                "correct it, remove the row, or leave numeric out if these are names of classes"),
    ("d", True, "line 2, column 'd': 'nan' is not a number; "
                "correct it, remove the row, or leave numeric out if these are names of classes"),
    ("e", True, "line 5, column 'e': '1e99' is not a number; "
                "correct it, remove the row, or leave numeric out if these are names of classes"),
])
def test_labels_that_are_not_what_they_must_be_are_told(labels: Any, numeric: bool, said: str, words: Words,
                                                        tmp_path: Path) -> None:
    rows = [("two\nlines", "1", "1", "-1", "nan", "0"), ("x", "0", "0", "", "0", "0"), ("y", "0", "2", "", "0", "1e99")]
    file = write(tmp_path / "a.csv", rows, ("text", *"abcde"))
    with pytest.raises(ValueError) as error:
        Texts(file=file, words=words, labels=labels, numeric=numeric)
    assert str(error.value) == f"{file}, {said}"


def test_a_record_larger_than_a_block_is_told(words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.csv", [("1", "x", "a"), ("2", "long " * 500, "b")])
    monkeypatch.setattr(data.text, "BLOCK", 1000)
    with pytest.raises(ValueError, match=r"a\.csv, line 3: a record of more than 0 MB starts here; close its quote"):
        Texts(file=file, words=words, labels="label")


def test_a_vocabulary_of_nothing_is_told(file: str) -> None:
    with pytest.raises(ValueError, match=r"train\.csv, column 'text': no word occurs 9 times; lower min_frequency"):
        Words(file=file, min_frequency=9)
    with pytest.raises(ValueError, match=r"train\.csv, line 1: there is no column 'texts'; did you mean 'text'\?"):
        Words(file=file, text="texts")
    with pytest.raises(FileNotFoundError, match=r"the file /nowhere\.csv is not there"):
        Words(file="/nowhere.csv")


# Widths and vectors


def test_padding_waste_is_the_share_of_padding() -> None:
    lengths = np.array([1, 3, 4, 4])
    assert padding_waste(lengths, [np.array([0, 1]), np.array([2, 3])]) == 2 / 14
    assert padding_waste(lengths, [np.array([1]), np.array([2, 3])]) == 0
    assert padding_waste(lengths, []) == 0


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
