"""Rows of cells as lines of text, for a terminal and for a pipe alike: nothing is wrapped, cut or coloured."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """One line for each row, with columns two spaces apart. `right` are the numbers of the columns whose cells end
    under each other; those of the others begin under each other. All rows have the same number of cells."""
    spaces = widths(rows)
    return ["  ".join(f"{cell:>{space}}" if number in right else f"{cell:<{space}}"
                      for number, (cell, space) in enumerate(zip(row, spaces, strict=True))).rstrip() for row in rows]


def widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The number of characters in the longest cell of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
