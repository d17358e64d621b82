"""Many strings in two arrays, because a Python list of them is copied into every loader worker, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class PackedStrings(Sequence[str]):
    """Immutable strings by number. A fork shares their memory: reading one changes no reference count in it.

    Takes their UTF-8 bytes and 8 bytes each. File names that are no text survive, as `os.fsdecode` gives them.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        parts = [text.encode("utf-8", "surrogateescape") for text in strings]
        self._ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(parts), dtype=np.uint8)

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
