"""Pieces of a page: how they are laid out."""

from __future__ import annotations

import re

import pytest
from markupsafe import Markup

from drumbeat.trainers.report import page


@pytest.mark.parametrize(("count", "rows"), [(1, [1]), (2, [2]), (3, [3]), (4, [4]), (5, [2, 3]), (7, [4, 3])])
def test_no_figure_is_alone_in_its_row(count: int, rows: list[int]) -> None:
    figures = [page.Figure("", Markup("x"))] * count
    parts = page.grid([*figures, page.Figure("", Markup("y"), kind="wide")]).split('<div class="')[1:]
    assert [part.count("<figure") for part in parts] == [*rows, 1]
    assert [part.partition('"')[0] for part in parts[:-1]] == ["grid thirds" if row == 3 else "grid" for row in rows]


def test_text_is_escaped_and_parts_of_the_page_are_not() -> None:
    part = page.fold("a < b", page.listing("<script>"))
    assert part == "<details><summary>a &lt; b</summary><div><pre>&lt;script&gt;</pre>\n</div></details>\n"
    assert page.image(b"none", "<b>") == '<p class="faint">&lt;b&gt; cannot be read</p>'
    assert "<title>&lt;i&gt;</title>" in page.page("<i>", [page.table(["<u>"], [["&"]])])


def test_keys_and_comments_of_yaml_are_highlighted() -> None:
    text = "# all: of it\na: 'x#1'  # one\nb:\n- c.d: <2>\n  e\n"
    assert page.yaml(text) == ("<pre><i># all: of it</i>\n<b>a</b>: &#39;x#1&#39;  <i># one</i>\n<b>b</b>:\n"
                               "- <b>c.d</b>: &lt;2&gt;\n  e\n</pre>\n")


def test_cards_fill_their_rows() -> None:
    pages = {count: page.cards([("loss", "1", "")] * count) for count in (5, 6, 7, 8)}
    assert [re.findall(r"--\w+: (\d)", text) for text in pages.values()] == [
        ["5", "3"], ["6", "3"], ["4", "4"], ["4", "4"]]
