"""Texts: a column of a CSV, TSV or JSON-lines file as a dataset of word numbers.

    vocabulary = Vocabulary(file="train.csv", text="review")
    train = Texts(file="train.csv", text="review", labels="sentiment", vocabulary=vocabulary, max_length=400)
    (ids, lengths), targets = train.fetch(np.arange(32))        # Padded: int64 [32, T], int64 [32]; int64 [32]

A file is read once and stored as flat arrays in a folder beside it (store.py). vocabulary.py turns words into numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import file_digest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drumbeat.data.labels import Labels
from drumbeat.data.order import Integers
from drumbeat.data.store import built, digest, mapped
from drumbeat.data.tables import Table, found
from drumbeat.data.vocabulary import Vocabulary, glove

__all__ = ["Texts", "Vocabulary", "glove", "padding_waste"]


LEAST_UNKNOWN = 0.02
"""The share of unknown words that is told. With words that occur once left out, a few are unknown in most sets."""


class Padded(NamedTuple):
    """Texts padded to the same length, or one text."""

    ids: Tensor
    """int64 [b, T]: word numbers."""
    lengths: Tensor
    """int64 [b]: the number of words without padding."""

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Padded:
        """Moves the word numbers. The lengths stay on the host, because torch.nn.utils.rnn reads them there: copying
        them back from a GPU would make the host wait."""
        return self._replace(ids=self.ids.to(device, non_blocking=non_blocking))


class Texts:
    """The rows of a file: (Padded(ids, length), target) by index, and as whole batches.

    `ids` are the numbers of a text's words, int64 [T]. `length`, an int64 scalar, is the number of words without
    padding; it is at least 1. With `max_length`, texts are truncated to that many words. With `length`, texts are
    truncated and padded to exactly that many words. Truncation keeps the end word of the vocabulary, if it has one.

    The target depends on `labels`:

        a column            a class number: int64. Classes are numbered in sorted order (by value if all are whole
                            numbers), or as listed in `classes`, for a file in which some classes do not occur
        a list of columns   a 0 or 1 for each label: float32 [L]
        with `separator`    the same from one column, which has the names of the labels: "cat|dog"
        columns, `numeric`  the numbers, also of one column: float32 [V]
        None                -1: int64, for texts without labels
    """

    def __init__(self, *, file: str, vocabulary: Vocabulary, labels: str | Sequence[str] | None, text: str = "text",
                 numeric: bool = False, classes: Sequence[str] | None = None, id: str | None = None,  # noqa: A002
                 length: int | None = None, max_length: int | None = None, quoted: bool | None = None,
                 cache: str | None = None, separator: str | None = None) -> None:
        """Opens the file's store, and builds it first if necessary, which takes about 30 core seconds per 100 MB.

        `id` is the column with the rows' names. `quoted` says whether fields may be in double quotes and then contain
        separators and line breaks; the default is true for CSV and false for TSV. `cache` is the folder of the store,
        by default `.drumbeat` beside the file, or `drumbeat` in the user's cache folder if that cannot be written.

        Raises FileNotFoundError if the file does not exist, and ValueError, which names the line and the column, if
        its content is not as expected.
        """
        if length is not None and max_length is not None:
            raise ValueError(f"give either length={length} (truncate and pad) or max_length={max_length} (truncate)")
        limit = max_length if length is None else length
        least = 1 + sum(special is not None for special in (vocabulary.start, vocabulary.end))
        if limit is not None and limit < least:
            raise ValueError(f"a text has at least {least} words, including the start and end words; "
                             f"it cannot be truncated to {limit}")
        targets = Labels(labels, numeric=numeric, classes=classes, separator=separator)
        path = found(file)
        table = Table(path, quoted, joined=separator)
        recipe = (text, targets, id, table.quoted, vocabulary.fingerprint)

        def build(folder: Path) -> None:
            _build(folder, table, text, targets, id, vocabulary)

        self.file = path
        self.vocabulary = vocabulary
        self.value_names = targets.columns if numeric else []
        """The name of the number in the target."""
        self.length = length
        self.limit = limit
        self.folder = built(path, "texts", recipe, build, cache)
        self._recipe = digest(recipe, length, max_length)
        self._open()

    def _open(self) -> None:
        about = json.loads((self.folder / "about.json").read_text("utf-8"))
        self._rows: int = about["rows"]
        self._content: str = about["content"]
        self._unknown: int = about["unknown"]
        self.classes: list[str] = about["classes"]
        self._ids = mapped(self.folder / "ids", np.int32, about["words"])
        self._offsets = mapped(self.folder / "offsets", np.int64, self._rows + 1)
        self._width: int = about["width"]
        self.labels: Integers | None = None
        self._targets: NDArray[Any] = np.broadcast_to(np.int64(-1), (self._rows,))
        if about["kind"] == "classes":
            self._targets = self.labels = mapped(self.folder / "targets", np.int64, self._rows)
        elif about["kind"] != "none":
            values = mapped(self.folder / "targets", np.float32, self._rows * self._width)
            self._targets = values.reshape(self._rows, -1)

    def __getstate__(self) -> dict[str, Any]:
        """Without the arrays, which are mapped again: otherwise each process would get its own copy of them."""
        arrays = ("_ids", "_offsets", "_targets", "labels", "lengths")
        return {name: value for name, value in self.__dict__.items() if name not in arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> tuple[Padded, Tensor]:
        """(Padded(ids int64 [T], length int64), target). Raises IndexError outside 0 to n - 1."""
        (ids, lengths), targets = self.fetch(np.array([index]))
        return Padded(ids[0], lengths[0]), targets[0]

    def fetch(self, indices: Integers) -> tuple[Padded, Tensor]:
        """The rows at these indices as one batch of b: (Padded(ids int64 [b, T], lengths int64 [b]), targets).

        T is `length`, or else the length of the longest text; shorter texts are padded. Targets are int64 [b] or
        float32 [b, L]. Raises IndexError outside 0 to n - 1.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < self._rows:
            raise IndexError(f"rows {rows.min()} to {rows.max()} are not all in 0 to {self._rows - 1}")
        starts = self._offsets[rows]
        whole = self._offsets[rows + 1] - starts
        lengths = whole if self.limit is None else np.minimum(whole, self.limit)
        width = lengths.max(initial=0) if self.length is None else self.length
        ids = np.full((len(rows), width), self.vocabulary.padding, np.int64)
        before = np.cumsum(lengths) - lengths
        where = np.repeat(starts - before, lengths) + np.arange(lengths.sum())
        ids[np.arange(width) < lengths[:, None]] = self._ids[where]
        if self.vocabulary.end is not None:
            cut = lengths < whole
            ids[cut, lengths[cut] - 1] = self.vocabulary.end
        return Padded(torch.from_numpy(ids), torch.from_numpy(lengths)), torch.from_numpy(self._targets[rows])

    @cached_property
    def lengths(self) -> Integers:
        """The number of words in each text after truncation, int64 [n]."""
        return self.whole_lengths if self.limit is None else np.minimum(self.whole_lengths, self.limit)

    @property
    def whole_lengths(self) -> Integers:
        """The number of words in each text before truncation, int64 [n]."""
        return np.diff(self._offsets)

    @property
    def facts(self) -> dict[str, int]:
        """Sizes that a model needs: words in the vocabulary; classes, labels or numbers; and the number of padding."""
        return {"vocab_size": self.vocabulary.size, "classes": self._width, "padding_idx": self.vocabulary.padding}

    def notes(self) -> list[str]:
        """What the user should know about the set: the share of unknown words, and of texts that are cut."""
        notes, words = [], len(self._ids)
        if self._unknown >= LEAST_UNKNOWN * words:
            notes.append(f"{self._unknown / words:.0%} of the words are not in the vocabulary, and the model cannot "
                         "tell them apart")
        whole = np.diff(self._offsets)
        if self.limit is not None and (cut := int((whole > self.limit).sum())):
            lost = int((whole - self.limit).clip(0).sum())
            notes.append(f"{cut:,} of {self._rows:,} texts are cut after {self.limit:,} words, which leaves out "
                         f"{max(lost / words, 0.001):.1%} of all words")
        return notes

    def names(self) -> list[str]:
        """The name of each row: its value in the column `id`, or else its row number."""
        with open(self.folder / "names", encoding="utf-8") as file:
            return list(map(json.loads, file)) or list(map(str, range(self._rows)))

    def fingerprint(self) -> dict[str, str]:
        """A digest of the file's content (not its name or time), the vocabulary and the arguments."""
        return {"files": digest(self._content, self._recipe), "times": ""}


def padding_waste(lengths: Integers, batches: Iterable[Integers]) -> float:
    """The fraction of padding, 0 to 1, if the texts of each batch are padded to the longest one.

    `lengths` are int64 [n]. Each batch is an array of indices into it.
    """
    used = slots = 0
    for batch in batches:
        chosen = lengths[batch]
        used += int(chosen.sum())
        slots += len(chosen) * int(chosen.max(initial=0))
    return (slots - used) / slots if slots else 0.0


def _build(folder: Path, table: Table, text: str, targets: Labels, name: str | None, vocabulary: Vocabulary) -> None:
    """Writes the arrays of a dataset to a folder, block by block."""
    columns = [text, *targets.columns, *([] if name is None else [name])]
    rows = end = unknown = 0
    with (open(folder / "ids", "wb") as ids, open(folder / "offsets", "wb") as offsets,
          open(folder / "names", "w", encoding="utf-8") as names):
        np.zeros(1, np.int64).tofile(offsets)
        for texts, *others in table.blocks(columns, "texts"):
            numbers, lengths = vocabulary.encode_all(texts)
            ends = end + np.cumsum(lengths)
            numbers.tofile(ids)
            unknown += 0 if vocabulary.unknown is None else int((numbers == vocabulary.unknown).sum())
            ends.tofile(offsets)
            targets.add(table, others[:len(targets.columns)])
            if name is not None:
                names.writelines(json.dumps(value) + "\n" for value in others[-1])
            rows += len(texts)
            end = int(ends[-1])
    targets.save(folder / "targets")
    with open(table.path, "rb") as source:
        content = file_digest(source, "blake2b").hexdigest()
    about = {"rows": rows, "words": end, "unknown": unknown, "kind": targets.kind, "classes": targets.classes,
             "width": len(targets.classes) or len(targets.columns), "content": content, "file": str(table.path)}
    (folder / "about.json").write_text(json.dumps(about, indent=1), "utf-8")
