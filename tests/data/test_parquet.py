"""Parquet files as tables of texts."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from drumbeat.data import parquet as ours
from drumbeat.data.tables import Table


def write(file: Path, **columns: object) -> Table:
    parquet.write_table(pyarrow.table(columns), file)
    return Table(file)


def test_values_of_all_types_become_texts(tmp_path: Path) -> None:
    table = write(tmp_path / "a.parquet", text=["a", None, "\u00e9"], number=[1, 2, 3], share=[0.5, 1.0, 1e-9],
                  flag=[True, False, None], kind=pyarrow.array(["x", "y", "x"]).dictionary_encode())
    (block,) = table.blocks(["share", "text", "number", "flag", "kind"])
    assert block == [["0.5", "1", "1e-9"], ["a", "", "\u00e9"], ["1", "2", "3"], ["true", "false", ""],
                     ["x", "y", "x"]]
    assert table.columns() == ["text", "number", "share", "flag", "kind"]


def test_blocks_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "ROWS", 2)
    table = write(tmp_path / "a.parquet", text=list("abcde"))
    assert list(table.blocks(["text"])) == [[["a", "b"]], [["c", "d"]], [["e"]]]


def test_errors(tmp_path: Path) -> None:
    table = write(tmp_path / "a.parquet", text=["a"], lists=[["b"]])
    with pytest.raises(ValueError, match=r"a.parquet: there is no column 'txt'; did you mean 'text'\?"):
        list(table.blocks(["txt"]))
    with pytest.raises(ValueError, match=r"a.parquet, row 1, column 'lists': \['b'\] is a list; give a separator"):
        list(table.blocks(["lists"]))
    with pytest.raises(ValueError, match=r"empty.parquet has no rows"):
        list(write(tmp_path / "empty.parquet", text=pyarrow.array([], pyarrow.string())).blocks(["text"]))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 damaged PAR1")
    with pytest.raises(ValueError, match=r"a.parquet cannot be read: "):
        list(table.blocks(["text"]))
