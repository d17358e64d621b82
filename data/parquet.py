"""Reads columns of a Parquet file as texts, in blocks of rows.

pyarrow is imported when a file is read and not before: that starts a thread, and ranks are forked from one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROWS = 1 << 16
"""Rows read at a time."""


def columns(path: Path) -> list[str]:
    """The names of the columns. Raises ValueError for a file that is no Parquet file."""
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        return list(parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def blocks(path: Path, names: Sequence[str], joined: str | None) -> Iterator[list[list[str]]]:
    """The columns, in blocks of rows. Numbers are written as text, and an empty cell is ''. A list is joined by
    `joined`. Raises ValueError for a list if `joined` is None, and for a damaged file."""
    import pyarrow
    from pyarrow import parquet

    first = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS, columns=list(dict.fromkeys(names))):
                yield [_texts(batch.column(name), f"{path}, row {first + 1}, column {name!r}", joined)
                       for name in names]
                first += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _texts(values: Any, where: str, joined: str | None) -> list[str]:
    import pyarrow

    if pyarrow.types.is_list(values.type) or pyarrow.types.is_large_list(values.type):
        if joined is None:
            raise ValueError(f"{where}: {values[0].as_py()!r} is a list; give a separator, which joins its texts")
        return [joined.join(map(str, one or ())) for one in values.to_pylist()]
    if pyarrow.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    texts: list[str] = values.cast(pyarrow.string()).fill_null("").to_pylist()
    return texts
