"""Pieces of a page: how they are laid out."""

from __future__ import annotations

import re

import pytest

from drumbeat.trainers.report import page


@pytest.mark.parametrize(("count", "rows"), [(1, [1]), (2, [2]), (3, [3]), (4, [4]), (5, [2, 3]), (7, [4, 3])])
def test_no_figure_is_alone_in_its_row(count: int, rows: list[int]) -> None:
    figures = [page.figure("", "x")] * count
    parts = page.grid([*figures, page.figure("", "y", kind="wide")]).split('<div class="')[1:]
    assert [part.count("<figure") for part in parts] == [*rows, 1]
    assert [part.partition('"')[0] for part in parts[:-1]] == ["grid thirds" if row == 3 else "grid" for row in rows]


def test_tiles_fill_their_rows() -> None:
    made = {count: page.tiles([("loss", "1", "")] * count) for count in (5, 6, 7, 8)}
    assert [re.findall(r"--\w+: (\d)", text) for text in made.values()] == [
        ["5", "3"], ["6", "3"], ["4", "4"], ["4", "4"]]
