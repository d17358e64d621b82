"""Converts the label columns of a file to targets for training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drumbeat.data.order import Integers
from drumbeat.data.tables import Table, short

MISSING = frozenset({"nan", "na", "n/a", "#n/a", "<na>", "null"})
"""What programs write for a missing value, in lower case. As the name of a class it is refused unless `classes` has it.
"""


class Labels:
    """The targets for the arguments `labels`, `numeric`, `classes` and `separator` of a dataset, collected block by
    block.

        labels                          the target
        a column                        a class number: int64
        a list of columns               a 0 or 1 for each label: float32 [L]
        a column, and a separator       the same, from the names of the labels in one cell: "cat|dog"
        one column or more, numeric     the numbers: float32 [V]
        None                            -1: int64

    Classes and labels are in sorted order (by value if all are whole numbers), or as listed in `classes`. Spaces around
    a name do not count. Raises ValueError for arguments that contradict each other.
    """

    def __init__(self, labels: str | Sequence[str] | None, *, numeric: bool, classes: Sequence[str] | None,
                 separator: str | None = None) -> None:
        one = isinstance(labels, str)
        if numeric and labels is None:
            raise ValueError("numeric=True needs one column or more as labels, not None")
        if classes is not None and (numeric or not one):
            raise ValueError("classes needs one column of labels that are not numeric")
        if separator is not None and (numeric or not one or not separator):
            raise ValueError("separator needs one column of labels that are not numeric, as in finding: cat|dog")
        if labels is not None and not labels:
            raise ValueError(f"labels={labels!r} names no column; for a dataset without labels write labels=None")
        self.kind = ("none" if labels is None else "numbers" if numeric else "many" if separator or not one else
                     "classes")
        self.columns: list[str] = [labels] if isinstance(labels, str) else list(labels or ())
        self.separator = separator
        self.given = None if classes is None else [str(name).strip() for name in classes]
        self._numbers = {label: number for number, label in enumerate(self.given or ())}
        if len(self._numbers) < len(self.given or ()):
            raise ValueError(f"classes has duplicates: {', '.join(self.given or ())}")
        self._cells = dict(self._numbers)
        """The number of the label in each cell that was seen, with the spaces around it."""
        self._targets: list[NDArray[Any]] = []
        self._rows = 0

    def __repr__(self) -> str:
        return f"{self.kind} {self.columns} {self.given} {self.separator}"

    @property
    def classes(self) -> list[str]:
        """The names of a model's outputs: the classes or the labels; empty for numbers."""
        if self.kind == "classes" or self.separator:
            return _sorted_labels(self._numbers) if self.given is None else self.given
        return self.columns if self.kind == "many" else []

    def add(self, table: Table, columns: Sequence[list[str]], taken: NDArray[np.bool_] | None = None) -> None:
        """Adds the labels of the next block of a table. Raises ValueError, which names the line, for an invalid label.
        If only some rows are `taken`, bool [rows], the labels of the others may be invalid, and their targets have no
        meaning."""
        taken = np.ones(len(columns[0]) if columns else 0, np.bool_) if taken is None else taken
        if self.kind == "classes":
            self._targets.append(self._classes(table, columns[0], taken))
        elif self.separator:
            self._targets.append(self._lists(table, columns[0], taken))
        elif columns:
            pairs = zip(self.columns, columns, strict=True)
            self._targets.append(np.stack([self._values(table, name, column, taken) for name, column in pairs], axis=1))
        self._rows += len(columns[0]) if columns else 0

    def array(self) -> NDArray[Any]:
        """The targets of all blocks: classes int64 [n]; labels or numbers float32 [n, L]; int64 [0] for no labels."""
        order = {label: number for number, label in enumerate(self.classes)}
        final = np.array([order[label] for label in self._numbers], np.int64)
        if self.separator:
            targets = np.zeros((self._rows, len(final)), np.float32)
            rows, numbers = np.concatenate(self._targets, axis=1)
            targets[rows, final[numbers]] = 1
            return targets
        whole: NDArray[Any] = np.concatenate(self._targets) if self._targets else np.empty(0, np.int64)
        return final[whole] if self.kind == "classes" else whole

    def save(self, path: Path) -> None:
        """Writes `array()` to a file."""
        self.array().tofile(path)

    def _classes(self, table: Table, column: list[str], taken: NDArray[np.bool_]) -> Integers:
        """Class numbers. If no classes were given, they are numbered as they occur, and `array` sorts them."""
        numbers = np.fromiter((self._cells.get(cell, -1) for cell in column), np.int64, len(column))
        for row in np.flatnonzero(numbers < 0).tolist():  # a label that occurs for the first time, or with spaces
            numbers[row] = self._cells[column[row]] = self._number(table, column[row].strip(), row, taken)
        return numbers

    def _lists(self, table: Table, column: list[str], taken: NDArray[np.bool_]) -> Integers:
        """The labels of the rows, [2, labels]: the row in the table, and the number of the label."""
        pairs = [(self._rows + row, self._number(table, label.strip(), row, taken)) for row, cell in enumerate(column)
                 for label in cell.split(self.separator) if label.strip()]
        return np.array([pair for pair in pairs if pair[1] >= 0], np.int64).reshape(-1, 2).T

    def _number(self, table: Table, label: str, row: int, taken: NDArray[np.bool_]) -> int:
        """The number of a label; -1 for an invalid one in a row that is not taken."""
        number = self._numbers.get(label)
        if number is not None:
            return number
        if label and self.given is None and label.lower() not in MISSING:
            return self._numbers.setdefault(label, len(self._numbers))
        if not taken[row]:
            return -1
        what, remedy = "the label is empty", "give one, or remove the row"
        if label and self.given is None:
            what = f"the label {short(label)} stands for a missing one"
            remedy = "give one, or remove the row; if it is the name of a class, list all names in classes"
        elif label:
            what = f"the class {short(label)} is not among {', '.join(self._numbers)}"
            remedy = "add it to classes, or correct the label"
        raise table.fault(self._rows + row, self.columns[0], what, remedy)

    def _values(self, table: Table, name: str, column: list[str],
                taken: NDArray[np.bool_]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            values = np.array(list(map(_number, column))).astype(np.float32)
        many = self.kind == "many"
        bad = taken & ((values != 0) & (values != 1) if many else ~np.isfinite(values))
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
