"""Tables of text: aligned columns, and no spaces at the ends of lines."""

from __future__ import annotations

import pytest

from drumbeat.configs.text_table import aligned, widths


def test_columns_line_up_left_or_right() -> None:
    rows = [("step", "phase", "loss"), ("1,000", "", "0.5"), ("9", "head", "")]
    assert aligned(rows, right={0, 2}) == [
        " step  phase  loss",
        "1,000          0.5",
        "    9  head"]
    assert aligned(rows)[2] == "9      head"
    assert widths(rows) == [5, 5, 4]


def test_rows_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        aligned([("a", "b"), ("c",)])
