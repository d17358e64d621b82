"""Text: a column of a CSV, TSV or JSON-lines file as a dataset of word numbers.

    words = Words(file="train.csv", text="review")
    train = Texts(file="train.csv", text="review", labels="sentiment", words=words, max_length=400)
    (ids, lengths), targets = train.fetch(np.arange(32))        # Padded: int64 [32, T], int64 [32]; int64 [32]

A file is read once and kept as flat arrays in a folder beside it, as store.py says; vocabulary.py has the words.
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
from drumbeat.data.vocabulary import Words, glove

__all__ = ["Texts", "Words", "glove", "padding_waste"]


class Padded(NamedTuple):
    """Texts that are padded to one width, or one text."""

    ids: Tensor
    """int64 [b, T]: word numbers."""
    lengths: Tensor
    """int64 [b]: how many words are not padding."""

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Padded:
        """Moves the words. The lengths stay on the host, where packing (torch.nn.utils.rnn) reads them: to fetch them
        from a GPU, the host would have to wait for it."""
        return self._replace(ids=self.ids.to(device, non_blocking=non_blocking))


class Texts:
    """The rows of a file as (Padded(ids, length), target) pairs by index, and as whole batches.

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
        least = 1 + sum(special is not None for special in (words.start, words.end))
        if limit is not None and limit < least:
            raise ValueError(f"a text has at least {least} words, those that open and close it counted; "
                             f"it cannot be cut to {limit}")
        targets = Labels(labels, numeric=numeric, classes=classes)
        path = found(file)
        table = Table(path, quoted)
        recipe = (text, targets, id, table.quoted, words.fingerprint)

        def build(folder: Path) -> None:
            _build(folder, table, text, targets, id, words)

        self.words = words
        self.value_names = targets.columns if numeric else []
        """What its numbers are called."""
        self.length = length
        self.limit = limit
        self.folder = built(path, "texts", recipe, build, cache)
        self._recipe = digest(recipe, length, max_length)
        self._open()

    def _open(self) -> None:
        about = json.loads((self.folder / "about.json").read_text("utf-8"))
        self._rows: int = about["rows"]
        self._content: str = about["content"]
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
        """The arrays stay behind, to be mapped again: pickled, each process would have a copy of its own."""
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
        return Padded(torch.from_numpy(ids), torch.from_numpy(lengths)), torch.from_numpy(self._targets[rows])

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
        with open(self.folder / "names", encoding="utf-8") as file:
            return list(map(json.loads, file)) or list(map(str, range(self._rows)))

    def fingerprint(self) -> dict[str, str]:
        """A digest of what the set was made from: of the file's bytes, whatever it is called and when it was written,
        of the vocabulary, and of what became of both."""
        return {"files": digest(self._content, self._recipe), "times": ""}


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


def _build(folder: Path, table: Table, text: str, targets: Labels, name: str | None, words: Words) -> None:
    """Write a set's arrays to a folder, block by block."""
    columns = [text, *targets.columns, *([] if name is None else [name])]
    rows = end = 0
    with (open(folder / "ids", "wb") as ids, open(folder / "offsets", "wb") as offsets,
          open(folder / "names", "w", encoding="utf-8") as names):
        np.zeros(1, np.int64).tofile(offsets)
        for texts, *others in table.blocks(columns, "texts"):
            numbers, lengths = words.encode_all(texts)
            ends = end + np.cumsum(lengths)
            numbers.tofile(ids)
            ends.tofile(offsets)
            targets.add(table, others[:len(targets.columns)])
            if name is not None:
                names.writelines(json.dumps(value) + "\n" for value in others[-1])
            rows += len(texts)
            end = int(ends[-1])
    targets.save(folder / "targets")
    with open(table.path, "rb") as source:
        content = file_digest(source, "blake2b").hexdigest()
    about = {"rows": rows, "words": end, "kind": targets.kind, "classes": targets.classes,
             "width": len(targets.classes) or len(targets.columns), "content": content, "file": str(table.path)}
    (folder / "about.json").write_text(json.dumps(about, indent=1), "utf-8")
