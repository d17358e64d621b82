"""Converts the label columns of a file to targets for training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drumbeat.data.order import Integers
from drumbeat.data.tables import Table, short


class Labels:
    """The targets for the arguments `labels`, `numeric` and `classes` of `Texts`, collected block by block.

    Raises ValueError for arguments that contradict each other.
    """

    def __init__(self, labels: str | Sequence[str] | None, *, numeric: bool, classes: Sequence[str] | None) -> None:
        one = isinstance(labels, str)
        if numeric and not one:
            raise ValueError(f"numeric=True needs one column as labels, not {labels!r}")
        if classes is not None and (numeric or not one):
            raise ValueError("classes needs one column of labels that are not numeric")
        if labels is not None and not labels:
            raise ValueError(f"labels={labels!r} names no column; for a dataset without labels write labels=None")
        self.kind = "none" if labels is None else "numbers" if numeric else "classes" if one else "many"
        self.columns: list[str] = [labels] if isinstance(labels, str) else list(labels or ())
        self.given = None if classes is None else list(map(str, classes))
        self._numbers = {label: number for number, label in enumerate(self.given or ())}
        if len(self._numbers) < len(self.given or ()):
            raise ValueError(f"classes has duplicates: {', '.join(self.given or ())}")
        self._targets: list[NDArray[Any]] = []
        self._rows = 0

    def __repr__(self) -> str:
        return f"{self.kind} {self.columns} {self.given}"

    @property
    def classes(self) -> list[str]:
        """The names of a model's outputs: the classes or the labels; empty for a number."""
        if self.kind != "classes":
            return self.columns if self.kind == "many" else []
        return _sorted_labels(self._numbers) if self.given is None else self.given

    def add(self, table: Table, columns: Sequence[list[str]]) -> None:
        """Adds the labels of the next block of a table. Raises ValueError, which names the line, for an invalid label.
        """
        if self.kind == "classes":
            self._targets.append(self._classes(table, columns[0]))
        elif columns:
            pairs = zip(self.columns, columns, strict=True)
            self._targets.append(np.stack([self._values(table, name, column) for name, column in pairs], axis=1))
        self._rows += len(columns[0]) if columns else 0

    def save(self, path: Path) -> None:
        """Writes the targets of all blocks: classes int64 [n]; labels or numbers float32 [n, L]."""
        order = {label: number for number, label in enumerate(self.classes)}
        final = np.array([order[label] for label in self._numbers], np.int64)
        with open(path, "wb") as file:
            for block in self._targets:
                (final[block] if self.kind == "classes" else block).tofile(file)

    def _classes(self, table: Table, column: list[str]) -> Integers:
        """Class numbers. If no classes were given, they are numbered as they occur, and `save` sorts them."""
        if self.given is None:
            for label in column:
                if label:
                    self._numbers.setdefault(label, len(self._numbers))
        numbers = np.array([self._numbers.get(label, -1) for label in column], np.int64)
        if (numbers < 0).any():
            row = int(np.argmax(numbers < 0))
            what, remedy = "the label is empty", "give one, or remove the row"
            if column[row]:
                what = f"the class {short(column[row])} is not among {', '.join(self._numbers)}"
                remedy = "add it to classes, or correct the label"
            raise table.fault(self._rows + row, self.columns[0], what, remedy)
        return numbers

    def _values(self, table: Table, name: str, column: list[str]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            values = np.array(list(map(_number, column))).astype(np.float32)
        many = self.kind == "many"
        bad = (values != 0) & (values != 1) if many else ~np.isfinite(values)
        if bad.any():
            row = int(np.argmax(bad))
            remedy = ("for one column of class names write labels: " + name if many
                      else "correct it, remove the row, or leave numeric out if these are names of classes")
            raise table.fault(self._rows + row, name,
                              f"{short(column[row])} is not {'0 or 1' if many else 'a number'}", remedy)
        return values


def _sorted_labels(labels: Iterable[str]) -> list[str]:
    """Sorted as text, or by value if all are integers: then class 10 comes after class 9."""
    names = sorted(labels)
    if all(name.removeprefix("-").isdecimal() for name in names):
        names.sort(key=int)
    return names


def _number(value: str) -> float:
    """A number, or 1 and 0 for true and false in any case; NaN for anything else."""
    try:
        return float(value)
    except ValueError:
        return {"true": 1.0, "false": 0.0}.get(value.strip().lower(), float("nan"))
