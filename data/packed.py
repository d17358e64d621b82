"""Many strings in two arrays. A Python list of strings would be copied into every loader worker, page by page."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class PackedStrings(Sequence[str]):
    """An immutable sequence of strings. Forked processes share its memory, because reading changes no reference counts.

    It takes the UTF-8 bytes of the strings, and 8 bytes per string. File names that are not UTF-8 are kept, as
    `os.fsdecode` returns them.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        joined, ends = bytearray(), array("q", [0])  # one by one: a million objects take 100 MB meanwhile
        for text in strings:
            joined += text.encode("utf-8", "surrogateescape")
            ends.append(len(joined))
        self._ends = np.array(ends, dtype=np.int64)
        self._bytes = np.frombuffer(bytes(joined), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self._bytes[self._ends[number]:self._ends[number + 1]].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[number] for number in range(len(self)))

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        return self._bytes.nbytes + self._ends.nbytes
