"""Images that a table lists: nobody has to move files into folders.

    data:
      train: {_target_: drumbeat.data.ImageTable, file: list.csv, labels: finding, where: {split: train}}
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from hashlib import file_digest
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from drumbeat.data.image_files import listed
from drumbeat.data.images import AT_ONCE, ImageFiles
from drumbeat.data.labels import Labels
from drumbeat.data.order import Integers
from drumbeat.data.packed import PackedStrings
from drumbeat.data.store import digest
from drumbeat.data.tables import Table, found, short

LOOKED_FOR = 1000
"""Files of a table that must exist when the set is built: all, or as many in regular distances."""


class ImageTable(ImageFiles):
    """The rows of a CSV, TSV, JSON-lines or Parquet file: (image, target) by index.

    Args:
        file: the table.
        labels: the column or columns with the targets, as in `labels.Labels`: a class (int64), several labels (float32
            [L]), numbers with `numeric: true` (float32 [V]), or null for images without labels (-1).
        image: the column with the image files. Relative paths start from the folder `root`, by default the folder of
            the table.
        where: the rows to take, by the values of columns: `{split: train}` or `{fold: [0, 1, 2]}`. The classes are
            those of all rows, so that all parts of a table number them alike. Cells of other rows may be empty.
        separator: what stands between the labels in one cell, as in `cat|dog`.
        group: a column, for example with the patient, whose samples `Split` with `by: group` keeps together.
        weight: a column with the weight of each sample, which `data.sampling: {_target_: drumbeat.data.Weighted}`
            draws by.
        frame: a number as in `ImageFiles`, or the column with the number of the frame.

    The other arguments are those of `ImageFiles`. All files must exist when the set is built; of a table with more than
    1,000 rows, 1,000 in regular distances are looked for. Takes 8 bytes for each row besides its path and its target.

    Raises `FileNotFoundError` if the table does not exist; and `ValueError`, which names the line and the column, for a
    cell that is not as expected, and if no row is taken.
    """

    def __init__(self, *, file: str, labels: str | Sequence[str] | None, image: str = "file", root: str | None = None,
                 where: Mapping[str, Any] | None = None, numeric: bool = False, classes: Sequence[str] | None = None,
                 separator: str | None = None, group: str | None = None, weight: str | None = None,
                 frame: int | str | None = None, channels: Literal[1, 3] = 3,
                 short_side: int | Literal["auto"] | None = "auto", depth: Literal["auto", 8, 16] = "auto",
                 value_range: Sequence[float] | None = None) -> None:
        self.table = Table(found(file), joined=separator)
        targets = Labels(labels, numeric=numeric, classes=classes, separator=separator)
        frame_column = frame if isinstance(frame, str) else None
        rows = _Rows(self.table, targets, where=where or {}, image=image, group=group, weight=weight,
                     frame=frame_column)
        self._identity = digest(targets, where, image, group, weight, frame)
        self.classes = targets.classes
        self.value_names = targets.columns if numeric else []
        self.rows = rows.taken
        """The row in the table of each sample, int64 [n]."""
        self.image = image
        self.targets: NDArray[Any] = np.broadcast_to(np.int64(-1), (len(self.rows),)) if labels is None else (
            targets.array()[self.rows])
        """int64 [n] or float32 [n, L]."""
        self.labels: Integers | None = self.targets if targets.kind == "classes" else None
        if weight is not None:
            self.weights = rows.weights.array()[self.rows, 0].astype(np.float64)
        self._groups = rows.groups if group is not None else None
        super().__init__(root=str(self.table.path.parent if root is None else root), paths=rows.files,
                         channels=channels, short_side=short_side, depth=depth, value_range=value_range,
                         frame=None if isinstance(frame, str) else frame)
        if frame_column is not None:
            self.frames = _whole(self.table, frame_column, self.rows, rows.frames.array()[self.rows, 0])
        self._look_for()

    def _look_for(self) -> None:
        """Raises `ValueError` for the first file that does not exist, of those that are looked for."""
        chosen = np.unique(np.linspace(0, len(self) - 1, LOOKED_FOR).astype(np.int64)).tolist()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            there = threads.map(lambda index: Path(self.file(index)).is_file(), chosen)
            missing = next((index for index, exists in zip(chosen, there, strict=True) if not exists), None)
        if missing is not None:
            raise self.table.fault(int(self.rows[missing]), self.image,
                                   f"there is no image {short(self.paths[missing])} in {self.root}",
                                   "correct it, remove the row, or give the folder of the images as root")

    @cached_property
    def stamps(self) -> Integers:
        """[n, 3]: size in bytes, and modification time in nanoseconds, or -1 for a file that does not exist; and the
        frame. All files are asked for, which only a cache needs."""
        parts = np.array_split(np.arange(len(self)), AT_ONCE)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            states = np.concatenate(list(threads.map(self._states, parts)))
        frames = np.zeros(len(self), np.int64) if self.frames is None else self.frames
        return np.column_stack([states, frames])

    def _states(self, indices: Integers) -> Integers:
        """The size and modification time of these files, int64 [n, 2]."""
        states = np.full((len(indices), 2), -1, np.int64)
        for row, index in enumerate(indices.tolist()):
            with suppress(OSError):
                state = os.stat(self.file(index))  # noqa: PTH116
                states[row] = state.st_size, state.st_mtime_ns
        return states

    def target(self, index: int) -> Any:
        """int, or float32 [L]."""
        target = self.targets[index]
        return int(target) if self.targets.ndim == 1 else torch.from_numpy(target.copy())

    def groups(self) -> Sequence[str]:
        """The column `group`; without it, the patient of each DICOM file."""
        return super().groups() if self._groups is None else self._groups

    def fingerprint(self) -> dict[str, str]:
        """A digest of the table and of which rows and columns are used."""
        return {"files": digest(self._content, self._identity), "times": ""}

    @cached_property
    def _content(self) -> str:
        with open(self.table.path, "rb") as table:
            return file_digest(table, "blake2b").hexdigest()[:16]

    def notes(self) -> list[str]:
        looked = f"{LOOKED_FOR:,} of its {len(self):,} files were looked for, and all are there"
        return [*super().notes(), *([looked] if len(self) > LOOKED_FOR else [])]


class _Rows:
    """The rows of a table that are taken: their numbers, files and groups; and the other columns of all rows."""

    def __init__(self, table: Table, targets: Labels, *, where: Mapping[str, Any], image: str, group: str | None,
                 weight: str | None, frame: str | None) -> None:
        self.table = table
        self.where = {str(column): _texts(values) for column, values in where.items()}
        self.seen: dict[str, Counter[str]] = {column: Counter() for column in self.where}
        self.weights, self.frames = (Labels(column, numeric=column is not None, classes=None)
                                     for column in (weight, frame))
        columns = list(dict.fromkeys([image, *self.where, *([group] if group else []), *targets.columns,
                                      *self.weights.columns, *self.frames.columns]))
        taken: list[Integers] = []
        names: list[str] = []

        def files() -> Iterator[str]:
            first = 0
            for block in table.blocks(columns, "images"):
                named = dict(zip(columns, block, strict=True))
                is_chosen = self._chosen(named, len(block[0]))
                for labels in (targets, self.weights, self.frames):
                    labels.add(table, [named[column] for column in labels.columns], is_chosen)
                chosen = np.flatnonzero(is_chosen)
                taken.append(chosen + first)
                yield from (self._checked(named[image][row], first + row, image) for row in chosen.tolist())
                if group:
                    names.extend(named[group][row] for row in chosen.tolist())
                first += len(block[0])

        self.files = PackedStrings(files())
        self.groups = PackedStrings(names)
        self.taken = np.concatenate(taken)
        if not len(self.taken):
            raise ValueError(f"{table.path}: no row is taken by where: {dict(where)}; " + "; ".join(
                f"the values of {column} are {listed(seen)}" for column, seen in self.seen.items()))

    def _chosen(self, named: Mapping[str, list[str]], count: int) -> NDArray[np.bool_]:
        """Which of the block's rows `where` takes."""
        chosen = np.ones(count, np.bool_)
        for column, wanted in self.where.items():
            self.seen[column].update(named[column])
            chosen &= np.fromiter((cell in wanted for cell in named[column]), np.bool_, count)
        return chosen

    def _checked(self, file: str, row: int, column: str) -> str:
        if not file:
            raise self.table.fault(row, column, "the name of the image is empty", "give one, or remove the row")
        return file


def _texts(values: Any) -> set[str]:
    """The values that a column may have, as a table's cells are read."""
    several = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    return {str(value).lower() if isinstance(value, bool | int | float) else str(value) for value in several}


def _whole(table: Table, column: str, rows: Integers, values: NDArray[Any]) -> Integers:
    """The numbers in these rows of a column. Raises `ValueError` for what is not a whole number from 0 on."""
    wrong = np.flatnonzero((values < 0) | (values != np.floor(values)))
    if len(wrong):
        raise table.fault(int(rows[wrong[0]]), column, f"{values[wrong[0]]:g} is not the number of a frame",
                          "give a whole number from 0 on")
    return values.astype(np.int64)
