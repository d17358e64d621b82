"""Tables: the same columns from every format, in blocks, and exact errors."""

from __future__ import annotations

from pathlib import Path

import pytest

import drumbeat.data.tables
from drumbeat.data.tables import Table
from tests.data.reviews import write


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_progress_is_printed_at_intervals(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(Path(write(tmp_path / f"a.{suffix}", [("1", "x" * 900_000, "y")] * 10)))
    monkeypatch.setattr(drumbeat.data.tables, "BLOCK", 2_000_000)
    list(table.blocks(["text"], "words"))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(drumbeat.data.tables, "SECONDS_BETWEEN_LINES", 0)
    list(table.blocks(["text"], "words"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"words of a.{suffix}: 2 of 9 MB", f"words of a.{suffix}: 4 of 9 MB"]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.csv", b"", "a.csv is empty; expected a header and rows"),
    ("a.csv", b"text,label\n", "a.csv has a header but no rows"),
    ("a.csv", b"text,lable\na,b\n",
     "a.csv, line 1: there is no column 'label'; did you mean 'lable'? The columns are: text, lable"),
    ("a.csv", b"text,x\na,b\n", "a.csv, line 1: there is no column 'label'; the columns are: text, x"),
    ("a.csv", b"text,label,text\na,b,c\n", "a.csv, line 1: two columns are named 'text'; rename one"),
    ("a.csv", b'text,label\n"a\n\nb",c\nd\n',
     "a.csv, line 5: 1 fields, but the header has 2 columns (text, label); "
     "put fields that contain a separator in double quotes, or correct the line"),
    ("a.tsv", b"text\tlabel\na\tb\tc\n",
     "a.tsv, line 2: 3 fields, but the header has 2 columns (text, label); "
     "remove separators from the fields, or set quoted=True if fields stand in double quotes"),
    ("a.csv", b'label,text\na,b\nc,"d\ne,f\n',
     "a.csv, line 3: a quote that starts here is never closed; "
     "close it, or set quoted=False if quotes are part of the text"),
    ("a.csv", b"text,label\na,b\ncaf\xe9,b\n",
     "a.csv, line 3: byte 19 of the file, 0xe9, is not UTF-8; convert it, probably with: "
     "iconv -f latin1 -t utf-8 a.csv > a.utf8.csv"),
    ("a.csv", b"t\xe9xt,label\na,b\n",
     "a.csv, line 1: byte 2 of the file, 0xe9, is not UTF-8; convert it, probably with: "
     "iconv -f latin1 -t utf-8 a.csv > a.utf8.csv"),
    ("a.jsonl", b'{"text": "a", "label": "b"}\n\n{"text": "a" "label"}\n',
     "a.jsonl, line 3: this is not JSON (Expecting ',' delimiter: line 1 column 14 (char 13)); "
     "correct or remove the line"),
    ("a.jsonl", b'[{"text": "a"}]',
     "a.jsonl, line 1: this is a JSON array; expected an object on each line, as jq -c '.[]' a.jsonl writes it"),
    ("a.jsonl", b"7\n", "a.jsonl, line 1: expected a JSON object such as {\"text\": \"...\"}, not 7"),
    ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": "a"}\n',
     "a.jsonl, line 2: there is no column 'label'; the columns are: text"),
    ("a.jsonl", b'{"text": null, "label": "b"}\n',
     "a.jsonl, line 1, column 'text': None is not text; correct or remove the line"),
    ("a.jsonl", b'{"text": "a\\ud83d", "label": "b"}\n',
     "a.jsonl, line 1, column 'text': character 2 is half of a surrogate pair, '\\ud83d'; remove it"),
    ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": "\xff", "label": "b"}\n',
     "a.jsonl, line 2: byte 39 of the file, 0xff, is not UTF-8; convert it, probably with: "
     "iconv -f latin1 -t utf-8 a.jsonl > a.utf8.jsonl"),
    ("a.jsonl", b"\n \n", "a.jsonl has no rows"),
    ("a.xlsx", b"PK",
     "a.xlsx is not a table; its suffix must be one of .csv, .tsv, .json, .jsonl, .ndjson, .parquet"),
    ("a.parquet", b"PAR1",
     "a.parquet cannot be read: Parquet file size is 4 bytes, smaller than the minimum file footer (8 bytes)"),
])
def test_errors_in_a_file_are_reported(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        list(Table(tmp_path / name).blocks(["text", "label"]))
    assert str(error.value) == f"{tmp_path}/{message}"


def test_a_record_larger_than_a_block_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.csv", [("1", "x", "a"), ("2", "long " * 500, "b")])
    monkeypatch.setattr(drumbeat.data.tables, "BLOCK", 1000)
    with pytest.raises(ValueError, match=r"a\.csv, line 3 is longer than 0 MB; correct or remove it"):
        list(Table(Path(file)).blocks(["text"]))


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.jsonl", b"[" * 100_000, "this is a JSON array"), ("a.jsonl", b'{"a":' * 100_000, "this is not JSON"),
    ("a.jsonl", b'{"text": "a"}\n' + b" " * 5_000_000, "line 2 is longer than 4 MB"),
    ("a.csv", b"text\n" + b"x" * 12_000_000, "line 2 is longer than 4 MB"),
    ("a.csv", b"x" * 5_000_000, "a record of more than 4 MB"),
    ("a.csv", b'text\n"' + b"x\n" * 3_000_000, "a record of more than 4 MB"),
    ("a.tsv", b"text\n" + b"\xff" * 5_000_000, "line 2 is longer than 4 MB"),
], ids=["array", "deep", "JSON", "field", "header", "quote", "bytes"])
def test_a_record_has_a_bound(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(Table(tmp_path / name).blocks(["text"]))


def test_the_columns_of_a_table(tmp_path: Path) -> None:
    for name, content in (("a.csv", 'text,"a ""b"", c"\nx,y\n'), ("a.jsonl", '\n{"text": 1, "a \\"b\\", c": 2}\n')):
        (tmp_path / name).write_text(content)
        assert Table(tmp_path / name).columns() == ["text", 'a "b", c']
    (tmp_path / "a.jsonl").write_text("3\n")
    with pytest.raises(ValueError, match="expected a JSON object"):
        Table(tmp_path / "a.jsonl").columns()
