"""Text: a column of a CSV, TSV or JSON-lines file as a dataset of word numbers.

    words = Words(file="train.csv", text="review")
    train = Texts(file="train.csv", text="review", labels="sentiment", words=words, max_length=400)
    (ids, lengths), targets = train.fetch(np.arange(32))        # int64 [32, T], int64 [32], int64 [32]

A file is read once, block by block, and kept as flat arrays in a folder `.drumbeat` beside it. From then on every
process maps these into memory: a set of any size takes no memory of its own, in no loader worker, and opens at once.
However many processes start together, one builds. A folder appears whole, by one rename, so a build that was killed
leaves nothing to be taken for a set; and it is named after all it was made from, so a changed file is built anew.
"""

from __future__ import annotations

import csv
import difflib
import errno
import fcntl
import glob
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b, file_digest
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from pyarrow import csv as arrow  # type: ignore[import-untyped]
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from data.order import Integers

FORMAT = 1
"""Raised when the stores are laid out, or texts split, in another way: those of older versions are then built anew."""

BLOCK = 4 << 20
"""Bytes read at a time, and the most that one record of a CSV file may have."""

WORD = r"\w+|[^\w\s]"
"""Letters, their marks, digits and underscores that stand together; or one of anything else that is not a space."""

PADDING, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "<end>"

FORMATS = {".csv": ",", ".tsv": "\t", ".json": "", ".jsonl": "", ".ndjson": ""}
"""What separates the fields in files of each suffix: nothing in JSON lines."""


class Words:
    """A vocabulary, and how a text is split into its words.

    It is learnt from the column `text` of `file`: a word is a run of letters and digits, or a single mark or symbol,
    and those that occur at least `min_frequency` times are numbered from the most frequent down (ties by the word), the
    first `max_words` of them if that is given. 0 is padding and 1 any other word; with `start_and_end`, 2 opens and 3
    closes each text. The same file and arguments give the same bytes, and are learnt once: a validation set names the
    training file here, and so gets the training set's vocabulary.

    If `file` is a tokenizer.json of the `tokenizers` library, that is used as it is, and the other arguments are idle.
    """

    def __init__(self, *, file: str, text: str = "text", lower: bool = True, min_frequency: int = 2,
                 max_words: int | None = None, start_and_end: bool = False, quoted: bool | None = None,
                 cache: str | None = None) -> None:
        """`quoted` and `cache` are those of `Texts`.

        Raises FileNotFoundError for a file that is not there, and ValueError for one that cannot be read as it should.
        """
        if min_frequency < 1 or (max_words is not None and max_words < 1):
            raise ValueError(f"min_frequency and max_words count from 1, not {min_frequency} and {max_words}")
        path = _found(file)
        if not _is_tokenizer(path):
            table = Table(path, quoted)
            specials = [PADDING, UNKNOWN, *([START, END] if start_and_end else [])]
            key = _digest(FORMAT, *_state(path), text, lower, min_frequency, max_words, specials, table.quoted)
            path = _built(f"{path.stem}-{key}.words", _folders(path, cache), lambda folder: _learn(
                table, text, lower=lower, least=min_frequency, most=max_words, specials=specials,
            ).save(str(folder / "tokenizer.json"))) / "tokenizer.json"
        self._use(path.read_text("utf-8"), str(path))

    def _use(self, description: str, file: str) -> None:
        self.file = file
        self._description = description
        try:
            self._tokenizer = Tokenizer.from_str(description)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{file} is not a tokenizer.json: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # "[PAD]" written in a text is text
        probe = self._tokenizer.encode("a")
        self.start: int | None = probe.ids[0] if probe.special_tokens_mask[0] else None
        self.end: int | None = probe.ids[-1] if probe.special_tokens_mask[-1] else None
        self.padding = self._special(PADDING, "[PAD]")
        self.unknown = self._special(UNKNOWN, "[UNK]")
        self._added = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._empty = [number for number in (self.start, self.unknown, self.end) if number is not None]

    def _special(self, *names: str) -> int:
        for name in names:
            if (number := self._tokenizer.token_to_id(name)) is not None:
                return int(number)
        raise ValueError(f"{self.file} has no {' or '.join(names)} in its vocabulary; add one, "
                         "or let Words learn a vocabulary: file: train.csv")

    def __getstate__(self) -> tuple[str, str]:
        return self._description, self.file

    def __setstate__(self, state: tuple[str, str]) -> None:
        self._use(*state)

    @property
    def size(self) -> int:
        """Words in the vocabulary, V, special ones too: every number lies in range(V)."""
        return len(self._by_number)

    @cached_property
    def _by_number(self) -> list[str]:
        numbers = self._tokenizer.get_vocab()
        by_number = [""] * (1 + max(numbers.values()))
        for word, number in numbers.items():
            by_number[number] = word
        return by_number

    @cached_property
    def fingerprint(self) -> str:
        """A short digest of the vocabulary and of how texts are split, in hexadecimal."""
        return _digest(self._description)

    def words(self) -> list[str]:
        """The vocabulary: word number i at i."""
        return list(self._by_number)

    def encode(self, text: str) -> NDArray[np.int32]:
        """The numbers of a text's words, int32 [T]; T is never 0, as a text without words counts as an unknown one."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], Integers]:
        """Many texts, on all cores: the numbers of their words in one row, int32, and their lengths, int64 [n]."""
        rows = [encoded.ids for encoded in self._tokenizer.encode_batch_fast(texts)]
        rows = [row if len(row) > self._added else self._empty for row in rows]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths

    def save(self, path: str) -> None:
        """Write it as a tokenizer.json, to be named as `file` elsewhere."""
        Path(path).write_text(self._description, "utf-8")


def _learn(table: Table, text: str, *, lower: bool, least: int, most: int | None, specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    trainer = trainers.WordLevelTrainer(vocab_size=most or 2**31, min_frequency=least, special_tokens=[],
                                        show_progress=False)
    tokenizer.train_from_iterator((block[0] for block in table.blocks([text])), trainer)
    learnt = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    if not learnt:
        raise ValueError(f"{table.path}, column {text!r}: no word occurs {least} times; lower min_frequency")
    # The specials are no "added tokens", which would be found in the texts: punctuation splits "<pad>" in three.
    numbers = {word: number for number, word in enumerate([*specials, *(word for word, _ in learnt)])}
    tokenizer.model = models.WordLevel(vocab=numbers, unk_token=UNKNOWN)
    if START in specials:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=[(START, numbers[START]), (END, numbers[END])])
    return tokenizer


def _is_tokenizer(path: Path) -> bool:
    """Whether a .json file is a tokenizer.json, not JSON lines: its first line is no object, or one with a model."""
    if path.suffix.lower() != ".json":
        return False
    with path.open("rb") as file:
        try:
            first = json.loads(file.readline())
        except ValueError:
            return True
    return not isinstance(first, dict) or "model" in first


class Texts:
    """The rows of a file as ((ids, length), target) pairs by index, and as whole batches.

    `ids` are the numbers of a text's words, int64 [T], and `length`, an int64 scalar, tells how many are not padding;
    it is never 0. Texts are cut to `max_length` words; or cut and padded to `length`, and then all have that many.
    Cutting keeps a closing word that ends each text.

    What the target is depends on `labels`:

        a column            its classes, numbered in sorted order, whole numbers by value: int64. `classes` tells them
                            beforehand, so that a file without some of them numbers the others alike
        a list of columns   one for each label, with a 0 or 1 in each row: float32 [L]
        a column, numeric   a number: float32 [1]
        None                -1: int64, for texts without labels
    """

    def __init__(self, *, file: str, words: Words, labels: str | Sequence[str] | None, text: str = "text",
                 numeric: bool = False, classes: Sequence[str] | None = None, id: str | None = None,  # noqa: A002
                 length: int | None = None, max_length: int | None = None, quoted: bool | None = None,
                 cache: str | None = None) -> None:
        """Opens the file's store, or builds it first: some 30 s for each 100 MB, shared by the cores there are.

        `id` is the column that names the rows. `quoted` tells whether fields may stand in double quotes, and then hold
        separators and line breaks: by default they do in CSV, and not in TSV. `cache` is the folder for the store; by
        default `.drumbeat` beside the file, or where that cannot be written, `drumbeat` in the user's cache folder.

        Raises FileNotFoundError for a file that is not there, and ValueError, with the line and the column, for one
        that does not hold what it should.
        """
        if length is not None and max_length is not None:
            raise ValueError(f"give length={length} (cut and padded) or max_length={max_length} (cut), not both")
        limit = max_length if length is None else length
        self.least = len([special for special in (words.start, words.end) if special is not None]) + 1
        if limit is not None and limit < self.least:
            raise ValueError(f"a text has at least {self.least} words, those that open and close it counted; "
                             f"it cannot be cut to {limit}")
        if numeric and not isinstance(labels, str):
            raise ValueError(f"numeric=True needs one column as labels, not {labels!r}")
        if classes is not None and (numeric or not isinstance(labels, str)):
            raise ValueError("classes go with one column of labels that are not numeric")
        if labels is not None and not labels:
            raise ValueError(f"labels={labels!r} names no column; for a set without labels write labels=None")
        path = _found(file)
        table = Table(path, quoted)
        columns = None if labels is None else [labels] if isinstance(labels, str) else list(labels)
        kind = "none" if columns is None else "numbers" if numeric else "classes" if isinstance(labels, str) else "many"
        recipe = _Recipe(text, kind, tuple(columns or ()), None if classes is None else tuple(map(str, classes)), id)
        key = _digest(FORMAT, *_state(path), words.fingerprint, recipe, table.quoted)
        self.words = words
        self.length = length
        self.limit = limit
        self.folder = _built(f"{path.stem}-{key}.texts", _folders(path, cache),
                             lambda folder: _build(folder, table, recipe, words))
        self._open()
        self.fingerprint = _digest(self._content, words.fingerprint, recipe, table.quoted, length, max_length)
        """A short digest of what the set was made from, in hexadecimal: of the file's bytes, not of where it lies."""

    def _open(self) -> None:
        about = json.loads((self.folder / "about.json").read_text("utf-8"))
        self._rows: int = about["rows"]
        self._content: str = about["content"]
        self.classes: list[str] = about["classes"]
        self._ids = self._map("ids", np.int32, about["words"])
        self._offsets = self._map("offsets", np.int64, self._rows + 1)
        kind, self._width = about["kind"], about["width"]
        self.labels: Integers | None = None
        self._targets: NDArray[Any] = np.broadcast_to(np.int64(-1), (self._rows,))
        if kind == "classes":
            self._targets = self.labels = self._map("targets", np.int64, self._rows)
        elif kind != "none":
            self._targets = self._map("targets", np.float32, self._rows * self._width).reshape(self._rows, -1)

    def _map(self, name: str, dtype: type, count: int) -> NDArray[Any]:
        path = self.folder / name
        size = path.stat().st_size
        if size != count * np.dtype(dtype).itemsize:
            raise ValueError(f"{path} is damaged ({size} bytes); remove {self.folder}, and it is built anew")
        return np.asarray(np.memmap(path, dtype, "r")) if count else np.empty(0, dtype)

    def __getstate__(self) -> dict[str, Any]:
        """The arrays stay behind, to be mapped again: pickled, each process would have a copy of its own."""
        mapped = ("_ids", "_offsets", "_targets", "labels", "lengths")
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """((ids int64 [T], length int64), target). Raises IndexError outside 0 to n - 1."""
        (ids, lengths), targets = self.fetch(np.array([index]))
        return (ids[0], lengths[0]), targets[0]

    def fetch(self, indices: Integers) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """The rows at these indices as one batch of b: ((ids int64 [b, T], lengths int64 [b]), targets).

        T is `length`, or else that of the longest of them; shorter ones are padded. Targets are int64 [b], or float32
        [b, L] as the class says. Raises IndexError outside 0 to n - 1.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < self._rows:
            raise IndexError(f"rows {rows.min()} to {rows.max()} do not all lie in 0 to {self._rows - 1}")
        starts = self._offsets[rows]
        whole = self._offsets[rows + 1] - starts
        lengths = whole if self.limit is None else np.minimum(whole, self.limit)
        width = lengths.max(initial=0) if self.length is None else self.length
        ids = np.full((len(rows), width), self.words.padding, np.int64)
        before = np.cumsum(lengths) - lengths
        where = np.repeat(starts - before, lengths) + np.arange(lengths.sum())
        ids[np.arange(width) < lengths[:, None]] = self._ids[where]
        if self.words.end is not None:
            cut = lengths < whole
            ids[cut, lengths[cut] - 1] = self.words.end
        return (torch.from_numpy(ids), torch.from_numpy(lengths)), torch.from_numpy(self._targets[rows])

    @cached_property
    def lengths(self) -> Integers:
        """Words of each text after cutting, int64 [n]."""
        whole = np.diff(self._offsets)
        return whole if self.limit is None else np.minimum(whole, self.limit)

    @property
    def facts(self) -> dict[str, int]:
        """What a model is sized by: words in the vocabulary, classes (or labels, or 1 number), the padding's number."""
        return {"vocabulary": self.words.size, "classes": self._width, "padding": self.words.padding}

    def names(self) -> list[str]:
        """What identifies each row, whatever else is in the file: its value in the column `id`, or else its number."""
        if not (self.folder / "names").exists():
            return list(map(str, range(self._rows)))
        ends = self._map("name_offsets", np.int64, self._rows + 1).tolist()
        packed = (self.folder / "names").read_bytes()
        return [packed[start:end].decode() for start, end in pairwise(ends)]


def padding_waste(lengths: Integers, batches: Iterable[Integers]) -> float:
    """The share of word slots that is padding, 0 to 1, where each batch of indices is as wide as its longest text.

    `lengths` are int64 [n]; each batch indexes them.
    """
    used = slots = 0
    for batch in batches:
        here = lengths[batch]
        used += int(here.sum())
        slots += len(here) * int(here.max(initial=0))
    return (slots - used) / slots if slots else 0.0


class Vectors(NamedTuple):
    """Pretrained vectors for a vocabulary of V words."""

    values: Tensor
    """float32 [V, D]; zero for a word that has none."""
    found: Tensor
    """bool [V]: which words have one."""
    coverage: float
    """The share of the words that have one, special ones not counted, 0 to 1."""


def glove(file: str, words: Words) -> Vectors:
    """Read the vectors of a vocabulary from a text file of GloVe or fastText: a word and D numbers a line.

    The file is read line by line, so that only the vectors kept take memory. A word that stands twice counts where it
    stands first. Raises FileNotFoundError, and ValueError with the line, for a file that is not like this.
    """
    path = _found(file)
    specials = {words.padding, words.unknown, words.start, words.end}
    numbers = {word.encode(): number for number, word in enumerate(words.words()) if number not in specials}
    found = np.zeros(words.size, np.bool_)
    values = np.zeros((words.size, 0), np.float32)
    with path.open("rb") as lines:
        for line, row in enumerate(lines, 1):
            if not values.shape[1]:
                if line == 1 and len(row.split()) == 2:
                    continue  # fastText's heading: how many words, how many numbers
                values = np.zeros((words.size, max(1, len(row.split()) - 1)), np.float32)
            number = numbers.get(row.partition(b" ")[0])
            if number is None or found[number]:
                continue
            word, *parts = row.rstrip().rsplit(b" ", values.shape[1])
            if b" " in word:
                continue  # some "words" of Common Crawl are several
            try:
                if len(parts) != values.shape[1]:
                    raise ValueError
                values[number] = np.array(parts, np.float32)
            except ValueError:
                raise ValueError(f"{path}, line {line}: expected a word and {values.shape[1]} numbers, not "
                                 f"{_short(row.decode(errors='replace').strip())}; download the file again") from None
            found[number] = True
    if not values.shape[1]:
        raise ValueError(f"{path} holds no vectors; expected a word and its numbers on each line")
    return Vectors(torch.from_numpy(values), torch.from_numpy(found), float(found.sum() / max(1, len(numbers))))


@dataclass(frozen=True)
class _Recipe:
    """Which columns of a file become what."""

    text: str
    kind: str
    """none, classes, many or numbers."""
    labels: tuple[str, ...]
    classes: tuple[str, ...] | None
    id: str | None

    def __repr__(self) -> str:
        return repr((self.text, self.kind, self.labels, self.classes, self.id))


def _build(folder: Path, table: Table, recipe: _Recipe, words: Words) -> None:
    """Write a set's arrays to a folder, block by block."""
    before = _state(table.path)
    columns = [recipe.text, *recipe.labels, *([recipe.id] if recipe.id else [])]
    codes = _Codes(table, recipe)
    rows = total = letters = 0
    with ExitStack() as files:
        ids, offsets, targets = (files.enter_context(open(folder / name, "wb"))
                                 for name in ("ids", "offsets", "targets"))
        names = files.enter_context(open(folder / "names", "wb")) if recipe.id else None
        name_offsets = files.enter_context(open(folder / "name_offsets", "wb")) if recipe.id else None
        for file in filter(None, (offsets, name_offsets)):
            np.zeros(1, np.int64).tofile(file)
        for block in table.blocks(columns):
            numbers, lengths = words.encode_all(block[0])
            numbers.tofile(ids)
            total = _append(offsets, lengths, total)
            codes(block[1:1 + len(recipe.labels)], rows).tofile(targets)
            if names and name_offsets:
                packed = [name.encode() for name in block[-1]]
                names.write(b"".join(packed))
                letters = _append(name_offsets, np.fromiter(map(len, packed), np.int64, len(packed)), letters)
            rows += len(block[0])
    codes.finish(folder / "targets")
    with table.path.open("rb") as source:
        content = file_digest(source, "blake2b").hexdigest()
    if _state(table.path) != before:
        raise ValueError(f"{table.path} changed while it was read; start again once it is written")
    about = {"rows": rows, "words": total, "kind": recipe.kind, "classes": codes.classes,
             "width": len(codes.classes) or len(recipe.labels), "content": content, "file": str(table.path)}
    (folder / "about.json").write_text(json.dumps(about, indent=1), "utf-8")


def _append(file: IO[bytes], lengths: Integers, end: int) -> int:
    """Append where each of some pieces ends, after `end`; returns where the last does."""
    ends = end + np.cumsum(lengths)
    ends.tofile(file)
    return int(ends[-1]) if len(ends) else end


class _Codes:
    """Columns of labels -> targets."""

    def __init__(self, table: Table, recipe: _Recipe) -> None:
        self.table = table
        self.recipe = recipe
        self.given = recipe.classes is not None
        self.numbers = {label: number for number, label in enumerate(recipe.classes or ())}
        if len(self.numbers) < len(recipe.classes or ()):
            raise ValueError(f"classes names one twice: {', '.join(recipe.classes or ())}")

    @property
    def classes(self) -> list[str]:
        """What the outputs of a model are called: the classes, or the labels; nothing for a number."""
        if self.recipe.kind != "classes":
            return list(self.recipe.labels) if self.recipe.kind == "many" else []
        return list(self.numbers) if self.given else _sorted_labels(self.numbers)

    def __call__(self, columns: Sequence[list[str]], first: int) -> NDArray[Any]:
        """The targets of a block whose first row has the number `first`."""
        if self.recipe.kind == "none":
            return np.empty(0, np.int64)
        if self.recipe.kind == "classes":
            return self._classes(columns[0], first)
        return np.stack([self._numbers(column, name, first)
                         for column, name in zip(columns, self.recipe.labels, strict=True)], axis=1)

    def _classes(self, column: list[str], first: int) -> Integers:
        """Numbered as the file brings them, where they were not given: `finish` puts them in order."""
        if not self.given:
            for label in column:
                self.numbers.setdefault(label, len(self.numbers))
        numbers = np.array([self.numbers.get(label, -1) for label in column], np.int64)
        bad = numbers < 0 if "" not in self.numbers else numbers == self.numbers[""]
        if bad.any():
            row = int(np.argmax(bad))
            what = f"the class {_short(column[row])} is not among {', '.join(self.numbers)}"
            raise self.table.fault(
                first + row, self.recipe.labels[0], what if column[row] else "the label is empty",
                "add it to classes, or correct the label" if column[row] else "give one, or remove the row")
        return numbers

    def _numbers(self, column: list[str], name: str, first: int) -> NDArray[np.float32]:
        try:
            values = np.array(list(map(float, column)))  # numpy would make room for the longest in each row
        except ValueError:
            values = np.array(list(map(_number, column)))
        with np.errstate(over="ignore"):
            small = values.astype(np.float32)
        many = self.recipe.kind == "many"
        bad = (values != 0) & (values != 1) if many else ~np.isfinite(small)
        if bad.any():
            row = int(np.argmax(bad))
            remedy = ("for one column of class names write labels: " + name if many
                      else "correct it, remove the row, or leave numeric out if these are names of classes")
            raise self.table.fault(first + row, name,
                                   f"{_short(column[row])} is not {'0 or 1' if many else 'a number'}", remedy)
        return small

    def finish(self, path: Path) -> None:
        """Number the classes in sorted order."""
        if self.recipe.kind != "classes" or self.given:
            return
        order = {label: number for number, label in enumerate(self.classes)}
        final = np.array([order[label] for label in self.numbers], np.int64)
        targets = np.memmap(path, np.int64, "r+")
        for start in range(0, len(targets), BLOCK):
            targets[start:start + BLOCK] = final[targets[start:start + BLOCK]]
        targets.flush()


def _sorted_labels(labels: Iterable[str]) -> list[str]:
    """Sorted as text, or by value where all are whole numbers: class 10 then comes after class 9."""
    names = sorted(labels)
    if all(name.removeprefix("-").isdecimal() for name in names):
        names.sort(key=int)
    return names


def _number(value: str) -> float:
    """A number or true or false, in any case; NaN for anything else."""
    try:
        return float({"true": 1, "false": 0}.get(value.strip().lower(), value))
    except ValueError:
        return float("nan")


@dataclass(frozen=True)
class Table:
    """A CSV, TSV or JSON-lines file, read in blocks; what is wrong in it is told with its line."""

    path: Path

    quoting: bool | None = None
    """Whether fields may stand in double quotes; None: in CSV they may, in TSV not."""

    def __post_init__(self) -> None:
        if self.path.suffix.lower() not in FORMATS:
            raise ValueError(f"{self.path} is no file of texts that can be read: {', '.join(FORMATS)}")
        if not self.path.stat().st_size:
            raise ValueError(f"{self.path} is empty; expected a heading and rows" if self.separator else
                             f"{self.path} is empty; expected a JSON object on each line")

    @property
    def separator(self) -> str:
        return FORMATS[self.path.suffix.lower()]

    @property
    def quoted(self) -> bool:
        return self.separator == "," if self.quoting is None else self.quoting

    def blocks(self, columns: Sequence[str]) -> Iterator[list[list[str]]]:
        """The columns of one block of rows after another. Raises ValueError at the first thing that is wrong."""
        heading = self._heading()
        self._demand(columns, heading)
        rows = 0
        for block in self._separated(columns, heading[-1]) if self.separator else self._json(columns):
            rows += len(block[0])
            yield block
        if not rows:
            raise ValueError(f"{self.path} has a heading and no rows" if self.separator else f"{self.path} has no rows")

    def fault(self, row: int, column: str, what: str, remedy: str) -> ValueError:
        """The error to raise for something in a row, which is counted from 0 without the heading."""
        line = self._line_of(row)
        return ValueError(f"{self.path}, line {line}, column {column!r}: {what}; {remedy}")

    def _demand(self, columns: Sequence[str], there: Sequence[str], line: int = 1) -> None:
        for name in columns:
            if there.count(name) == 1:
                continue
            if name in there:
                raise ValueError(f"{self.path}, line {line}: two columns are called {name!r}; rename one")
            close = difflib.get_close_matches(name, there, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"{self.path}, line {line}: there is no column {name!r}; {hint}"
                             f"The columns are: {', '.join(there)}".replace("; The", "; the"))

    def _heading(self) -> list[str]:
        if not self.separator:
            with self.path.open("rb") as file:
                for line, text in enumerate(file, 1):
                    if not text.isspace():
                        return list(self._object(text, line))
            raise ValueError(f"{self.path} has no rows")
        with self.path.open("rb") as file:
            try:
                file.readline(BLOCK).decode()
            except UnicodeDecodeError:
                self._check_encoding()
        for _, fields in self._records():
            return fields
        raise ValueError(f"{self.path} is empty; expected a heading and rows")

    def _separated(self, columns: Sequence[str], last: str) -> Iterator[list[list[str]]]:
        """`last` is the last column, read too: what a quote that is never closed has swallowed stands there."""
        end = ""
        names = list(dict.fromkeys([*columns, last]))
        parse = arrow.ParseOptions(delimiter=self.separator, quote_char='"' if self.quoted else False,
                                   newlines_in_values=self.quoted)
        convert = arrow.ConvertOptions(include_columns=names, strings_can_be_null=False,
                                       column_types={name: pyarrow.string() for name in names})
        try:
            for batch in arrow.open_csv(str(self.path), arrow.ReadOptions(block_size=BLOCK), parse, convert):
                if batch.num_rows:
                    end = batch.column(last)[-1].as_py()
                    yield [batch.column(name).to_pylist() for name in columns]
        except pyarrow.ArrowInvalid as error:
            self._check_encoding()
            self._check_shape()
            raise ValueError(f"{self.path} cannot be read: {error}") from None
        if "\n" in end:
            self._check_end()

    def _json(self, columns: Sequence[str]) -> Iterator[list[list[str]]]:
        line = 0
        with self.path.open("rb") as file:
            while texts := file.readlines(BLOCK):
                block: list[list[str]] = [[] for _ in columns]
                for text in texts:
                    line += 1
                    if text.isspace():
                        continue
                    row = self._object(text, line)
                    for name, values in zip(columns, block, strict=True):
                        values.append(self._as_text(row, name, line))
                yield block

    def _object(self, text: bytes, line: int) -> dict[str, Any]:
        where = f"{self.path}, line {line}"
        try:
            row = json.loads(text.removeprefix(b"\xef\xbb\xbf").decode())
        except UnicodeDecodeError:
            self._check_encoding()
            raise
        except ValueError as error:
            row = error
        if line == 1 and text.lstrip().startswith(b"["):
            raise ValueError(f"{where}: this is a JSON array; expected an object on each line, as "
                             f"jq -c '.[]' {self.path.name} writes it")
        if isinstance(row, ValueError):
            raise ValueError(f"{where}: this is not JSON ({row}); correct or remove the line")
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object such as {{\"text\": \"...\"}}, not {_short(row)}")
        return row

    def _as_text(self, row: dict[str, Any], name: str, line: int) -> str:
        value = row.get(name)
        if isinstance(value, str):
            if value.isascii():
                return value
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{self.path}, line {line}, column {name!r}: character {error.start + 1} is half of a "
                                 f"surrogate pair, {value[error.start]!r}; remove it") from None
            return value
        if isinstance(value, bool | int | float):
            return str(value).lower()
        self._demand([name], list(row), line)
        raise ValueError(f"{self.path}, line {line}, column {name!r}: {_short(value)} is no text; "
                         "correct or remove the line")

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The line on which each record of a CSV file starts, and its fields: as Arrow reads it, but slow."""
        usual = csv.field_size_limit(BLOCK)
        line = 1
        try:
            with open(self.path, encoding="utf-8-sig", errors="replace", newline="") as file:
                reader = csv.reader(file, delimiter=self.separator,
                                    quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE)
                for fields in reader:
                    if fields:
                        yield line, fields
                    line = reader.line_num + 1
        except csv.Error:
            raise ValueError(f"{self.path}, line {line}: a record of more than {BLOCK >> 20} MB starts here; "
                             "close its quote, or set quoted=False if quotes are part of the text") from None
        finally:
            csv.field_size_limit(usual)

    def _line_of(self, row: int) -> int:
        if self.separator:
            return next(line for number, (line, _) in enumerate(self._records()) if number == row + 1)
        with self.path.open("rb") as file:
            lines = (line for line, text in enumerate(file, 1) if not text.isspace())
            return next(line for number, line in enumerate(lines) if number == row)

    def _check_shape(self) -> None:
        columns: list[str] = []
        for line, fields in self._records():
            columns = columns or fields
            if len(fields) != len(columns):
                raise ValueError(
                    f"{self.path}, line {line}: {len(fields)} fields, but the heading has {len(columns)} columns "
                    f"({', '.join(columns)}); "
                    + ("put fields that hold a separator in double quotes, or correct the line" if self.quoted else
                       "remove separators from the fields, or set quoted=True if fields stand in double quotes"))

    def _check_end(self) -> None:
        """Whether the last field, which has a line break in it, ends with the quote that allows it to."""
        with self.path.open("rb") as file:
            file.seek(-min(8, self.path.stat().st_size), os.SEEK_END)
            if file.read().rstrip(b"\r\n").endswith(b'"'):
                return
        *_, (line, _) = self._records()
        raise ValueError(f"{self.path}, line {line}: a quote opens here and is never closed; "
                         "close it, or set quoted=False if quotes are part of the text")

    def _check_encoding(self) -> None:
        start = 0
        with self.path.open("rb") as file:
            for line, text in enumerate(file, 1):
                try:
                    text.decode()
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{self.path}, line {line}: byte {start + error.start + 1} of the file, "
                        f"0x{text[error.start]:02x}, is not UTF-8; save it as UTF-8, for instance with: "
                        f"iconv -f latin1 -t utf-8 {self.path.name}") from None
                start += len(text)


def _built(name: str, folders: Sequence[Path], build: Callable[[Path], None]) -> Path:
    """The folder `name` in the first of `folders` that has it, or else built in the first that can be written to."""
    for folder in folders:
        if (folder / name).is_dir():
            return folder / name
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / ".gitignore").exists():
                (folder / ".gitignore").write_text("*\n")
            lock = open(folder / f".{name}.lock", "ab")  # noqa: SIM115
        except OSError as error:
            if folder == folders[-1] or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            continue
        with lock:
            alone = _lock(lock)
            if not (folder / name).is_dir():
                _publish(folder, name, build, alone=alone)
        return folder / name
    raise ValueError("no folder to build in")


def _lock(file: IO[bytes]) -> bool:
    """Wait for our turn; False on a file system without locks, where each process builds and the first to end wins."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return False
    return True


def _publish(folder: Path, name: str, build: Callable[[Path], None], *, alone: bool) -> None:
    if alone:  # what builds that were killed have left
        for stale in folder.glob(f".{glob.escape(name)}.*.partial"):
            shutil.rmtree(stale, ignore_errors=True)
    partial = folder / f".{name}.{secrets.token_hex(4)}.partial"
    partial.mkdir()
    try:
        build(partial)
        for path in [*partial.iterdir(), partial]:
            _sync(path)
        try:
            partial.rename(folder / name)
        except OSError:
            if not (folder / name).is_dir():
                raise
        _sync(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(path: Path, cache: str | None) -> list[Path]:
    if cache is not None:
        return [Path(cache).absolute()]
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [path.parent / ".drumbeat", users / "drumbeat"]


def _found(file: str) -> Path:
    path = Path(file).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"the file {file} is not there")
    return path


def _state(path: Path) -> tuple[str, int, int]:
    """What tells that a file is still the same."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _digest(*parts: Any) -> str:
    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
