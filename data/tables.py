"""Reads columns of CSV, TSV, JSON-lines and Parquet files in blocks. Errors name the line, or the row."""

from __future__ import annotations

import csv
import difflib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from drumbeat.data import parquet
from drumbeat.data.encodings import check_not_wide, check_utf8
from drumbeat.data.regular import lines_of, open_regular

BLOCK = 4 << 20
"""Bytes read at a time, and the largest size of a record in a CSV file."""

SECONDS_BETWEEN_LINES = 5.0
"""Seconds between two lines of progress. Files that are read faster print none."""

PARQUET = ".parquet"
FORMATS = {".csv": ",", ".tsv": "\t", ".json": "", ".jsonl": "", ".ndjson": "", PARQUET: ""}
"""The separator of fields for each suffix; '' for JSON lines and Parquet. A CSV file whose header has semicolons or
tabs and no comma is separated by them, as spreadsheets write it in many countries."""


def found(file: str) -> Path:
    """The absolute path of a file. Raises FileNotFoundError if it does not exist, and ValueError if it is a folder."""
    path = Path(file).absolute()
    if path.is_dir():
        raise ValueError(f"{file} is a folder, but must be a file")
    if not path.is_file():
        raise FileNotFoundError(f"the file {file} does not exist")
    return path


def short(value: Any) -> str:
    """A value as it is shown in an error: at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bounded_text(file: TextIO) -> Iterator[str]:
    while line := file.readline(BLOCK + 1):
        if len(line) > BLOCK:
            raise csv.Error
        yield line


@dataclass(frozen=True)
class Table:
    """A file with a header and rows, a JSON object on each line, or a Parquet file."""

    path: Path

    quoting: bool | None = None
    """Whether fields may be in double quotes; None means true for CSV and false for TSV."""

    joined: str | None = None
    """What stands between the texts of a list, in JSON lines and Parquet, if it is read as one text. Without it, a list
    is an error."""

    def __post_init__(self) -> None:
        if self.path.suffix.lower() not in FORMATS:
            raise ValueError(f"{self.path} is not a table; its suffix must be one of {', '.join(FORMATS)}")
        if not self.path.stat().st_size:
            raise ValueError(f"{self.path} is empty; expected a header and rows" if self.separator else
                             f"{self.path} is empty; expected a JSON object on each line")

    @property
    def is_parquet(self) -> bool:
        return self.path.suffix.lower() == PARQUET

    @cached_property
    def separator(self) -> str:
        usual = FORMATS[self.path.suffix.lower()]
        if usual != ",":
            return usual
        with open_regular(self.path) as file:
            header = file.readline(BLOCK)
        return ("," if b"," in header else next((mark for mark in (";", "\t") if mark.encode() in header), ","))

    @property
    def quoted(self) -> bool:
        return self.path.suffix.lower() == ".csv" if self.quoting is None else self.quoting

    def blocks(self, columns: Sequence[str], what: str = "rows") -> Iterator[list[list[str]]]:
        """The columns, in blocks of rows. For large files, prints progress to stderr: "`what` of train.csv".

        Raises ValueError for the first error, and if there are no rows.
        """
        if self.is_parquet:
            self._require(columns, parquet.columns(self.path), None)
        else:
            check_not_wide(self.path)
        size = self.path.stat().st_size
        printed_at = time.monotonic()
        empty = True
        blocks = (parquet.blocks(self.path, columns, self.joined) if self.is_parquet else
                  self._separated(columns) if self.separator else self._json(columns))
        for number, block in enumerate(blocks, 1):
            if block[0]:
                empty = False
                yield block
            if time.monotonic() - printed_at >= SECONDS_BETWEEN_LINES and not self.is_parquet:
                printed_at = time.monotonic()
                print(f"{what} of {self.path.name}: {min(number * BLOCK, size) / 1e6:.0f} of {size / 1e6:.0f} MB",
                      file=sys.stderr, flush=True)
        if empty:
            raise ValueError(f"{self.path} has {'a header but ' if self.separator else ''}no rows")

    def columns(self) -> list[str]:
        """The names of the columns: the header, or the keys of the first JSON object. Raises ValueError."""
        if self.is_parquet:
            return parquet.columns(self.path)
        check_not_wide(self.path)
        if self.separator:
            return next(self._records(), (1, []))[1]
        with open_regular(self.path) as file:
            first = next(((line, text) for line, text in enumerate(self._bounded(file), 1) if not text.isspace()), None)
        return [] if first is None else list(self._object(first[1].removeprefix(b"\xef\xbb\xbf"), first[0]))

    def fault(self, row: int, column: str, what: str, remedy: str) -> ValueError:
        """The error for a fault in a row. Rows are counted from 0, without the header."""
        place = f"row {row + 1}" if self.is_parquet else f"line {next(islice(self._lines(), row, None))}"
        return ValueError(f"{self.path}, {place}, column {column!r}: {what}; {remedy}")

    def _lines(self) -> Iterator[int]:
        """The line on which each row starts."""
        if self.separator:
            yield from (line for line, _ in islice(self._records(), 1, None))
        else:
            with self.path.open("rb") as file:
                yield from (line for line, text in enumerate(self._bounded(file), 1) if not text.isspace())

    def _bounded(self, file: BinaryIO) -> Iterator[bytes]:
        """The lines of the file. Raises ValueError for a line that is too long."""
        try:
            yield from lines_of(file, BLOCK)
        except ValueError as error:
            raise ValueError(f"{self.path}, {error}; correct or remove it") from None

    def _require(self, columns: Sequence[str], existing: Sequence[str], line: int | None) -> None:
        where = str(self.path) if line is None else f"{self.path}, line {line}"
        for name in columns:
            if existing.count(name) > 1:
                raise ValueError(f"{where}: two columns are named {name!r}; rename one")
            if name not in existing:
                close = difflib.get_close_matches(name, existing, n=1)
                hint = f"did you mean {close[0]!r}? The" if close else "the"
                raise ValueError(f"{where}: there is no column {name!r}; {hint} columns are: "
                                 f"{', '.join(existing)}")

    # Fields with separators: read by Arrow, and again by Python if an error must name a line.

    def _separated(self, columns: Sequence[str]) -> Iterator[list[list[str]]]:
        import pyarrow  # type: ignore[import-untyped]  # not ahead: it starts a thread, and ranks are forked from one
        from pyarrow import csv as arrow

        line, header = next(self._records(), (1, []))
        if "\ufffd" in "".join(header):
            self._check_encoding()
        self._require(columns, header, line)
        last, end = header[-1], ""  # the text after an unclosed quote is in the last column
        names = list(dict.fromkeys([*columns, last]))
        parse = arrow.ParseOptions(delimiter=self.separator, quote_char='"' if self.quoted else False,
                                   newlines_in_values=self.quoted)
        convert = arrow.ConvertOptions(include_columns=names, strings_can_be_null=False,
                                       column_types={name: pyarrow.string() for name in names})
        try:
            for batch in arrow.open_csv(str(self.path), arrow.ReadOptions(block_size=BLOCK), parse, convert):
                if batch.num_rows:
                    end = batch.column(last)[-1].as_py()
                yield [batch.column(name).to_pylist() for name in columns]
        except pyarrow.ArrowInvalid as error:
            self._check_encoding()
            self._check_shape()
            raise ValueError(f"{self.path} cannot be read: {error}") from None
        if "\n" in end:
            self._check_end()

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The line on which each record starts, and its fields: like Arrow, but slow."""
        usual = csv.field_size_limit(BLOCK)
        line = 1
        try:
            with open(self.path, encoding="utf-8-sig", errors="replace", newline="") as file:
                reader = csv.reader(_bounded_text(file), delimiter=self.separator,
                                    quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE)
                for fields in reader:
                    if fields:
                        yield line, fields
                    line = reader.line_num + 1
        except csv.Error:
            raise ValueError(f"{self.path}, line {line}: a record of more than {BLOCK >> 20} MB starts here; "
                             "close its quote, or set quoted=False if quotes are part of the text") from None
        finally:
            csv.field_size_limit(usual)

    def _check_shape(self) -> None:
        columns: list[str] = []
        for line, fields in self._records():
            columns = columns or fields
            if len(fields) != len(columns):
                raise ValueError(
                    f"{self.path}, line {line}: {len(fields)} fields, but the header has {len(columns)} columns "
                    f"({', '.join(columns)}); "
                    + ("put fields that contain a separator in double quotes, or correct the line" if self.quoted else
                       "remove separators from the fields, or set quoted=True if fields stand in double quotes"))

    def _check_end(self) -> None:
        """Checks that the last field, which contains a line break, ends with a quote."""
        with self.path.open("rb") as file:
            file.seek(-min(8, self.path.stat().st_size), os.SEEK_END)
            if file.read().rstrip(b"\r\n").endswith(b'"'):
                return
        *_, (line, _) = self._records()
        raise ValueError(f"{self.path}, line {line}: a quote that starts here is never closed; "
                         "close it, or set quoted=False if quotes are part of the text")

    def _check_encoding(self) -> None:
        with self.path.open("rb") as file:
            check_utf8(self.path, self._bounded(file))

    # JSON lines.

    def _json(self, columns: Sequence[str]) -> Iterator[list[list[str]]]:
        line = 0
        with self.path.open("rb") as file:
            for texts in self._blocks_of_lines(file):
                block: list[list[str]] = [[] for _ in columns]
                for line, text in enumerate(texts, line + 1):  # noqa: B020
                    if not text.isspace():
                        row = self._object(text.removeprefix(b"\xef\xbb\xbf"), line)
                        for name, values in zip(columns, block, strict=True):
                            values.append(self._text(row, name, line))
                yield block

    def _blocks_of_lines(self, file: BinaryIO) -> Iterator[list[bytes]]:
        block: list[bytes] = []
        size = 0
        for text in self._bounded(file):
            block.append(text)
            size += len(text)
            if size >= BLOCK:
                yield block
                block, size = [], 0
        yield block

    def _object(self, text: bytes, line: int) -> dict[str, Any]:
        where = f"{self.path}, line {line}"
        if text.startswith(b"["):
            raise ValueError(f"{where}: this is a JSON array; expected an object on each line, as "
                             f"jq -c '.[]' {self.path.name} writes it")
        try:
            row = json.loads(text.decode())
        except UnicodeDecodeError:
            self._check_encoding()
            raise
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: this is not JSON ({error}); correct or remove the line") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object such as {{\"text\": \"...\"}}, not {short(row)}")
        return row

    def _text(self, row: dict[str, Any], name: str, line: int) -> str:
        if name not in row:
            self._require([name], list(row), line)
        where = f"{self.path}, line {line}, column {name!r}"
        value = row[name]
        if isinstance(value, bool | int | float):
            return str(value).lower()
        if isinstance(value, list) and self.joined is not None and all(isinstance(one, str) for one in value):
            value = self.joined.join(value)
        if not isinstance(value, str):
            raise ValueError(f"{where}: {short(value)} is not text; correct or remove the line")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{where}: character {error.start + 1} is half of a surrogate pair, "
                             f"{value[error.start]!r}; remove it") from None
        return value
