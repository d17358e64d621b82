"""Rows of cells as lines of text for terminals and pipes: nothing is wrapped, truncated or colored."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """One line per row, with columns two spaces apart. `right` are the numbers of the right-aligned columns; the others
    are left-aligned. All rows must have the same number of cells."""
    spaces = widths(rows)
    return ["  ".join(f"{cell:>{space}}" if number in right else f"{cell:<{space}}"
                      for number, (cell, space) in enumerate(zip(row, spaces, strict=True))).rstrip() for row in rows]


def widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The number of characters in the longest cell of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
