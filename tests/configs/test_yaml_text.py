"""YAML: line numbers when reading, comments when writing, and the same values in both directions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml

from drumbeat.configs.yaml_text import WIDTH, dump, inline, parse

AWKWARD: list[Any] = [
    "", " lead", "trail ", "yes", "no", "on", "n", "null", "~", "true", "1e-6", "1_000", "0x1f", "010", "12:30", ".5",
    ".inf", "2026-01-31", "a: b", "x:", ":x", "a #b", "#", "-", "- x", "--", "---", "...", "*a", "&a", "!tag", "?",
    "? a", "|", ">", "[a]", "a,b", "{a}", "it's", '"q"', "%d", "@x", "`", "=", "<<", "${x.y}",
    "a\nb", "a\nb\n", "- a\n  # b", "a\n\nb", " a\nb", "a\n b\n\n", "\t", "\x7f",
    "a\u0085b", "\u2028", "é", "😀", "/tmp/a b", "../x", "long " * 40,
    0, -3, 10**20, 0.1, 1e-6, 1e22, -0.0, math.inf, -math.inf, True, False, None,
    [], {}, [[1], [2, [3]]], {"a": {"b": []}}, [{"x": 1, "y": [{"z": {}}]}], ["long" * 10] * 5, {"a b": 1, "1": 2},
]


def test_numbers_dates_and_words_are_read_as_omegaconf_reads_them() -> None:
    text = "[1e-6, 1.5E3, 2026-01-31, 1_000, yes, .5, -.5e1, 1e, 0.1.2]"
    assert parse(text)[0] == [1e-6, 1500.0, "2026-01-31", 1000, True, 0.5, -5.0, "1e", "0.1.2"]


def test_each_key_and_each_item_of_a_list_has_its_line() -> None:
    text = "name: x\n\ndata:\n  train: {root: a, n: 1}\n  steps:\n    - {size: 3}\n    - 4\n"
    assert parse(text)[1] == {
        "name": 1, "data": 3, "data.train": 4, "data.train.root": 4, "data.train.n": 4, "data.steps": 5,
        "data.steps[0]": 6, "data.steps[0].size": 6, "data.steps[1]": 7}


def test_an_empty_text_is_none() -> None:
    assert parse("# nothing\n") == (None, {}, {})


@pytest.mark.parametrize("text", ["a: 1\na: 2", "x: {k: 1, k: 2}", "- a: 1\n  b: 2\n  a: 3"])
def test_a_key_cannot_stand_twice(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="duplicate key"):
        parse(text)


@pytest.mark.parametrize("value", AWKWARD, ids=repr)
def test_what_is_dumped_is_read_back(value: Any) -> None:
    values = {"key": value, "list": [value, value], "nested": [{"key": value}, {"deeper": {"key": value}}]}
    assert parse(dump(values))[0] == values
    assert parse(f"key: {inline(value)}")[0]["key"] == value
    if isinstance(value, str):
        assert parse(dump({"a": {value: 1}}))[0] == {"a": {value: 1}}


def test_not_a_number_stays_none() -> None:
    assert math.isnan(parse(dump({"x": math.nan}))[0]["x"])


def test_comments_stand_in_a_column_and_above_what_is_long() -> None:
    values = {"short": 1, "section": {"long": "x" * 60, "list": [{"_target_": "a.b", "size": 3}]}, "none": {}}
    comments = {"short": "a.yaml:1", "section.long": "a.yaml:3", "section.list": "--flag", "none": "command line"}
    assert dump(values, comments) == (
        "short: 1                                  # a.yaml:1\n"
        "section:\n"
        f"  long: {'x' * 60}  # a.yaml:3\n"
        "  list:                                   # --flag\n"
        "    - _target_: a.b\n"
        "      size: 3\n"
        "none: {}                                  # command line\n")
    text = dump({"section": {"long": "x" * 70}}, {"section.long": "a.yaml:3"})
    assert text == f"section:\n  # a.yaml:3\n  long: {'x' * 70}\n"
    assert max(map(len, dump(values, comments).splitlines())) <= WIDTH


def test_several_lines_stand_below_their_key() -> None:
    values = {"data": {"download_hint": "Fetch it:\n  fetch # all\n", "note": "one\ntwo"}}
    assert dump(values, {"data.download_hint": "a.yaml:3"}) == (
        "data:\n  download_hint: |                        # a.yaml:3\n    Fetch it:\n      fetch # all\n"
        "  note: |-\n    one\n    two\n")
