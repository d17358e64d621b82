"""A part of a dataset as a dataset: the same samples each time, and on every machine.

    data:
      train: {_target_: drumbeat.data.Split, part: train, fractions: {train: 0.8, validation: 0.2}, of: {_target_: ...}}

The part of a sample is computed from its name, so nothing is stored, and new files do not move old ones to another part
(with `by: class`, at most as many as there are new files).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import partial
from hashlib import blake2b
from itertools import accumulate, compress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from drumbeat.data.fast_path import has_pixels
from drumbeat.data.loader import Samples
from drumbeat.data.order import Integers, UInt64s, key
from drumbeat.data.sample_names import sample_groups, sample_names, told
from drumbeat.data.sampling import labels_of

TOLERANCE = Fraction(1, 10**9)
"""How much the sum of the fractions may exceed 1, because of rounding."""


class Split:
    """The samples of `of` that belong to one part, in the order of `of`.

    A sample's name (from `of.names()`, or else its number in the dataset) is hashed to [0, 1). The parts, in
    alphabetical order, divide that interval according to their fractions. `by` says what is assigned to parts:

    - "random": each sample. A sample stays in its part if samples are added to the dataset or removed.
    - "group": all samples of a group go to the same part. The groups are those that `of.groups()` tells: a column of a
      table, or the patients of DICOM files. Or `group` is a regular expression for the names, with one group in
      parentheses: `(person\\d+)_` keeps all images of a patient together. A name that does not match is its own group.
    - "class": within each class, the samples are sorted by their hashes and divided at the fractions, so that the size
      of each part of a class is exact up to one sample. Adding m samples to a class moves at most m of its samples
      across each division.

    If the sum of the fractions is less than 1, the remaining samples are in no part. A split of a split needs its own
    `seed`, or other names of parts: the hash depends on both.

    Other attributes and methods are those of `of`, and exist only if `of` has them. Raises ValueError for a part that
    is not in `fractions` or has no samples, fractions that are not positive or exceed 1 in total, a `group` that is not
    such an expression or matches no name, and a class split of a dataset without labels.
    """

    classes: Any
    """Those of `of`, including classes without samples in this part."""
    facts: Any
    """Those of `of`, about the whole dataset."""
    value_names: Any
    """Those of `of`."""
    labels: Any
    """The labels of this part, as a numpy array, or None if `of` has None; likewise the next three."""
    targets: Any
    weights: Any
    lengths: Any
    fetch: Callable[[Integers], tuple[Any, Any]]
    """The samples at these indices, int64 [b], as one batch."""
    names: Callable[[], Iterator[str]]
    """The names of the samples of this part, in order."""
    pixels: Callable[[int], Any]
    """The result of `of.pixels` for the sample at this index; `target` likewise."""
    target: Callable[[int], Any]
    notes: Callable[[], list[str]]
    """Those of `of`."""
    groups: Callable[[], Iterator[str]]
    """The groups of the samples of this part, in order."""
    fingerprint: Callable[[], dict[str, str]]
    """The digests of `of`; "files" also depends on the samples of this part."""

    def __init__(self, *, of: Samples, part: str, fractions: Mapping[str, float], seed: int = 0,
                 by: Literal["random", "class", "group"] = "random", group: str | None = None) -> None:
        start, end = _edges(part, fractions)
        if by not in ("random", "class", "group"):
            raise ValueError(f"by must be random, class or group, not {by}")
        if by != "group" and group is not None:
            raise ValueError("group: (a regular expression) belongs to by: group; give both or neither")
        hash_key = key(seed, "split", *sorted(fractions)).to_bytes(8, "little")
        hashes = _hashes(_groups(of, group) if by == "group" else _names(of), hash_key)
        if by == "class":
            chosen = _ranked(hashes, labels_of(of), start, end)
        else:
            chosen = (hashes >= math.ceil(start * 2**64)) & (hashes <= math.ceil(end * 2**64) - 1)
        self.of = of
        self.indices = np.flatnonzero(chosen)
        """int64 [n]: the indices of these samples in `of`, ascending."""
        if not len(self.indices):
            raise ValueError(f"the part '{part}', {float(end - start):.3g} of {len(hashes)} samples, has no sample; "
                             "give it a larger fraction" + (", or split by class" if by == "random" else ""))
        self._mirror()

    def _mirror(self) -> None:
        """Copies the other attributes and methods of `of` that exist. They are attributes of the object, so that
        `hasattr` and `isinstance` with a protocol (which ignores `__getattr__` from Python 3.12 on) work."""
        for name in ("classes", "facts", "value_names", "notes"):
            if hasattr(self.of, name):
                setattr(self, name, getattr(self.of, name))
        for name in ("labels", "targets", "weights", "lengths"):
            if hasattr(self.of, name):
                whole = getattr(self.of, name)
                setattr(self, name, None if whole is None else np.asarray(whole)[self.indices])
        for name, method in {"fetch": self._fetch, "names": partial(self._part, "names"), "pixels": self._pixels,
                             "target": self._target, "groups": partial(self._part, "groups"),
                             "fingerprint": self._fingerprint}.items():
            if has_pixels(self.of) if name == "pixels" else hasattr(self.of, name):
                setattr(self, name, method)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.of[int(self.indices[index])]

    def _fetch(self, indices: Integers) -> tuple[Any, Any]:
        return self.of.fetch(self.indices[indices])  # type: ignore[attr-defined, no-any-return]

    def _part(self, of: str) -> Iterator[str]:
        """The names or groups of this part."""
        chosen = np.zeros(len(self.of), dtype=np.bool_)
        chosen[self.indices] = True
        return compress(told(self.of, of), chosen.tolist())

    def _target(self, index: int) -> Any:
        return self.of.target(int(self.indices[index]))  # type: ignore[attr-defined]

    def _pixels(self, index: int) -> Any:
        return self.of.pixels(int(self.indices[index]))  # type: ignore[attr-defined]

    def _fingerprint(self) -> dict[str, str]:
        whole: dict[str, str] = self.of.fingerprint()  # type: ignore[attr-defined]
        digest = blake2b(whole["files"].encode() + self.indices.astype("<i8").tobytes(), digest_size=8)
        return {**whole, "files": digest.hexdigest()}


def underlying(samples: Any, kind: type[Any], rows: Integers | None = None) -> tuple[Any, Integers] | None:
    """The dataset of a type that a set is, or is a part of, through any number of levels, and the index in it of each
    sample, or of `rows` of the samples, int64 [n]. None if there is none."""
    rows = np.arange(len(samples)) if rows is None else rows
    while not isinstance(samples, kind):
        if not hasattr(samples, "of"):
            return None
        rows, samples = np.asarray(getattr(samples, "indices", np.arange(len(samples))))[rows], samples.of
    return samples, rows


def _edges(part: str, fractions: Mapping[str, float]) -> tuple[Fraction, Fraction]:
    """The part's interval in [0, 1). Each fraction is rounded to the nearest one with a denominator up to 10**9."""
    if part not in fractions:
        raise ValueError(f"there is no part '{part}'; fractions has {', '.join(map(str, fractions)) or 'none'}")
    for name, value in fractions.items():
        if not 0 < value <= 1:
            raise ValueError(f"the fraction of '{name}' must be above 0 and at most 1, not {value}")
    parts = sorted(fractions)
    ends = list(accumulate(Fraction(fractions[name]).limit_denominator(10**9) for name in parts))
    if ends[-1] > 1 + TOLERANCE:
        raise ValueError(f"the sum of the fractions is {float(ends[-1]):.10g}, which is more than 1: "
                         + ", ".join(f"{name} {value}" for name, value in fractions.items()))
    place = parts.index(part)
    return (ends[place - 1] if place else Fraction(0)), min(ends[place], Fraction(1))


def _names(of: Any) -> list[str]:
    names = sample_names(of)
    return list(map(str, range(len(of)))) if names is None else names


def _hashes(names: Iterable[str], hash_key: bytes) -> UInt64s:
    """The keyed BLAKE2b hash (RFC 7693) of each name: uint64 [n]. File names may contain bytes that are not UTF-8."""
    start = blake2b(key=hash_key, digest_size=8)

    def digest(name: str) -> bytes:
        state = start.copy()
        state.update(name.encode("utf-8", "surrogateescape"))
        return state.digest()

    return np.frombuffer(b"".join(map(digest, names)), dtype="<u8").astype(np.uint64)


def _groups(of: Any, group: str | None) -> list[str]:
    """The group of each sample: what the set tells, or the text of each name's group, or the name itself if it does not
    match."""
    if group is None:
        if (groups := sample_groups(of)) is None:
            raise ValueError(f"by: group needs group: (a regular expression), because {type(of).__name__} does not "
                             "tell the groups of its samples")
        return groups
    names = _names(of)
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise ValueError(f"group: {group} is not a regular expression: {error}") from error
    if pattern.groups != 1:
        raise ValueError(f"group: {group} must have one group in parentheses, as in (person\\d+)_, not "
                         f"{pattern.groups}")
    texts = [found[1] if (found := pattern.search(name)) else None for name in names]
    if names and not any(text is not None for text in texts):
        raise ValueError(f"group: {group} matches no sample's name; the first name is {names[0]}")
    return [name if text is None else text for text, name in zip(texts, names, strict=True)]


def _ranked(hashes: UInt64s, labels: Integers, start: Fraction, end: Fraction) -> NDArray[np.bool_]:
    """Whether a sample's rank by hash in its class is from `start` to `end` of the class's size: bool [n]."""
    by_rank = np.lexsort((hashes, labels))  # samples of the same name stay in the order of the dataset
    sizes = np.bincount(labels)
    within = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    first = np.repeat([math.floor(start * size) for size in sizes.tolist()], sizes)
    last = np.repeat([math.floor(end * size) for size in sizes.tolist()], sizes)
    chosen = np.empty(len(labels), dtype=np.bool_)
    chosen[by_rank] = (within >= first) & (within < last)
    return chosen
