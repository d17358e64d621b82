"""Streams beside `order.Stream`: samples drawn by weight, classes in turn; and steps of samples of like lengths.

    data:
      sampling: {_target_: drumbeat.data.ClassBalanced}

The trainer gives a stream the set, the seed and the phase; the config gives the rest. Like `order.Stream`, each is a
function of the position and keeps no state, so the order is the same at any width and after any number of stops. They
have no epochs of the whole set: the epoch boundaries of `order.Schedule` then count samples read, n of them to an
epoch. `rule` says in one sentence what takes the place of "each sample once an epoch".
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drumbeat.data.alias import AliasTable, Floats, whole_weights
from drumbeat.data.order import Integers, Permutation, Schedule, Stream, key, keys, shard


class SampleStream(Protocol):
    """What every stream is: the samples at the positions, int64 of any shape to int64 of that shape."""

    @property
    def seed(self) -> int: ...

    @property
    def phase(self) -> int: ...

    def indices(self, positions: Integers, /) -> Integers: ...


def labels_of(samples: Any) -> Integers:
    """The class number of each sample, int64 [n]: `samples.labels`, or torchvision's `samples.targets`.

    Raises ValueError where there is neither, or not one whole number from 0 on for each sample.
    """
    given = getattr(samples, "labels", None)
    if given is None:
        given = getattr(samples, "targets", None)
    if given is None:
        raise ValueError(f"{type(samples).__name__} does not say which class its samples belong to; give it an "
                         "attribute `labels`, a numpy array of one whole number for each sample")
    labels = np.asarray(given)
    if labels.shape != (len(samples),) or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise ValueError(f"the labels of {type(samples).__name__} are {labels.dtype} {list(labels.shape)}; sampling by "
                         f"class needs one class number, from 0 on, for each of the {len(samples)} samples")
    return labels.astype(np.int64)


def classes_of(samples: Any) -> list[str]:
    """The names of the classes: `samples.classes`, or the numbers up to the largest label as text.

    Raises ValueError for a label without a name, and where `labels_of` does.
    """
    most = int(labels_of(samples).max(initial=-1))
    names = _named_classes(samples) or list(map(str, range(most + 1)))
    if most >= len(names):
        raise ValueError(f"a sample has label {most}, but only {len(names)} classes have names: {_listed(names)}")
    return names


def _named_classes(samples: Any) -> list[str]:
    names = getattr(samples, "classes", None)
    return [] if names is None else list(map(str, names))


class Weighted:
    """Every position draws a sample anew, with replacement, with a chance in proportion to its weight.

    `class_weights` gives the weight that each sample of a class has, by the class's name; one over the class's size
    makes all classes alike. Or `file` gives the weight of each sample in the order of the set: a .npy array of n
    numbers, or text with a number on each line. Takes 24 bytes a sample.

    Raises ValueError for classes that are unknown or left out, for a wrong count of weights, for one that is negative,
    and for weights that are all zero; OSError for a file that cannot be read.
    """

    def __init__(self, samples: Any, seed: int, phase: int, *, class_weights: Mapping[str, float] | None = None,
                 file: str | None = None) -> None:
        self.seed = seed
        self.phase = phase
        if class_weights is not None and file is None:
            weights = _class_weights(samples, class_weights)
        elif file is not None and class_weights is None:
            weights = _read_weights(file, len(samples))
        else:
            raise ValueError("a weighted stream takes either class_weights, as in {normal: 1, pneumonia: 3}, or a file "
                             "with a weight for each sample")
        self.table = AliasTable.build(whole_weights(weights))

    @property
    def rule(self) -> str:
        """What takes the place of "each sample once an epoch"."""
        return "each position draws a sample by its weight, with replacement: how often one is read is left to chance"

    def indices(self, positions: Integers) -> Integers:
        """The samples at the positions, int64 of any shape to int64 of that shape.

        Raises ValueError for a negative position.
        """
        return self.table.draw(keys(self.seed, "weighted", self.phase, positions=positions))


def _class_weights(samples: Any, class_weights: Mapping[str, float]) -> Floats:
    labels, classes = labels_of(samples), classes_of(samples)
    given = {str(name): weight for name, weight in class_weights.items()}
    for name in given:
        if name not in classes:
            close = difflib.get_close_matches(name, classes, n=1)
            raise ValueError(f"class_weights names '{name}', which is no class of the set. "
                             + (f"Did you mean '{close[0]}'? " if close else "") + f"Its classes: {_listed(classes)}")
    missing = [name for name in classes if name not in given]
    if missing:
        raise ValueError(f"class_weights leaves out {_listed(missing)}; give every class a weight, 0 for never")
    for name, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"class_weights gives '{name}' the weight {weight!r}, which is not a number")
        if not 0 <= weight < math.inf:
            raise ValueError(f"class_weights gives '{name}' the weight {weight}, which is not a positive number or 0")
    return np.array([given[name] for name in classes], dtype=np.float64)[labels]


def _read_weights(file: str, n: int) -> Floats:
    path = Path(file)
    try:
        if path.suffix == ".npy":
            weights: Floats = np.load(path, allow_pickle=False).astype(np.float64)
        else:
            weights = np.array([float(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()])
    except ValueError as error:
        raise ValueError(f"the weights in {file} cannot be read: {error}; it must be a .npy array of numbers, or text "
                         "with one number on each line") from error
    if weights.shape != (n,):
        raise ValueError(f"{file} holds weights of shape {list(weights.shape)}, but the set has {n} samples; give one "
                         "weight for each, in the order of the set")
    return weights


def _listed(names: Iterable[str], most: int = 20) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class ClassBalanced:
    """Classes take turns, position p belongs to class p mod C, and each has shuffled epochs of its own.

    Takes 8 bytes a sample, and a block some 0.15 ms for each class in it. Where the set does not name its classes, they
    are the labels that occur. Raises ValueError for a class without samples, and where `labels_of` does.
    """

    def __init__(self, samples: Any, seed: int, phase: int) -> None:
        self.seed = seed
        self.phase = phase
        labels, classes = labels_of(samples), classes_of(samples)
        sizes = np.bincount(labels, minlength=len(classes))
        empty = [name for name, size in zip(classes, sizes, strict=True) if not size]
        if empty and _named_classes(samples):
            raise ValueError(f"classes cannot take turns where some have no samples: {_listed(empty)}; use a set that "
                             "has samples of each")
        self.members = np.argsort(labels, kind="stable")
        self.sizes = sizes[sizes > 0]
        self.starts = np.cumsum(self.sizes) - self.sizes

    @property
    def rule(self) -> str:
        """What takes the place of "each sample once an epoch"."""
        return (f"{len(self.sizes)} classes take one position each in turn; within a class each sample is read once "
                "per round of its class")

    def indices(self, positions: Integers) -> Integers:
        """The samples at the positions, int64 of any shape to int64 of that shape.

        Raises ValueError for a negative position.
        """
        flat = np.asarray(positions, dtype=np.int64).reshape(-1)
        turns, numbers = np.divmod(flat, len(self.sizes))
        picked = np.empty_like(flat)
        by_class = np.argsort(numbers, kind="stable")
        for here in np.split(by_class, np.flatnonzero(np.diff(numbers[by_class])) + 1):
            if len(here):
                number = int(numbers[here[0]])
                stream = Stream(int(self.sizes[number]), key(self.seed, "class", number), self.phase)
                picked[here] = self.members[self.starts[number] + stream.indices(turns[here])]
        return picked.reshape(np.shape(positions))


class LengthBuckets:
    """The positions one rank reads in each step from step `first` on, in steps of samples of like lengths.

    Takes the place of `loader.ShardedBatchSampler`. The samples of `batches` steps, a window, are sorted by length, cut
    into batches, and these are dealt out to the window's steps at random; the last window of a phase is shorter, so it
    never reads past the phase's end. Which sample lies at a position stays as it was, and so does its augmentation.
    Around an epoch boundary up to a window of samples is read early or late: each position is read once per phase, not
    per epoch.

    A rank takes every world_size-th position of the sorted batch, so that ranks read like lengths and wait little for
    each other, and as many as `order.shard` gives it. Needs memory for one window, and sorts it once; a start in the
    middle of a window sorts that one first.

    Args:
        lengths: length of each sample of the set, [n].
        batches: steps in a window.

    Raises ValueError for lengths that do not fit the set, a window of no steps, and more ranks than samples in a batch.
    """

    def __init__(self, schedule: Schedule, stream: SampleStream, lengths: Sequence[float] | NDArray[Any], *,
                 batches: int, rank: int, world_size: int, first: int = 0) -> None:
        self.schedule = schedule
        self.stream = stream
        self.lengths = np.asarray(lengths)
        self.batches = batches
        self.first = first
        if self.lengths.shape != (schedule.n,):
            raise ValueError(f"lengths of shape {list(self.lengths.shape)} do not fit a set of {schedule.n} samples")
        if batches < 1:
            raise ValueError(f"a window takes 1 batch or more, not {batches}")
        part = shard(schedule.batch_size, rank, world_size)
        even = schedule.batch_size // world_size
        self.mine = rank + world_size * np.arange(even)
        if len(part) > even:  # what is left over goes to the ranks whose share is larger by one, one each
            self.mine = np.append(self.mine, even * world_size + part.start - even * rank)

    @property
    def rule(self) -> str:
        """What takes the place of "each sample once an epoch"."""
        return f"each position is read once per phase, within {self.batches} steps of its own"

    def __len__(self) -> int:
        return self.schedule.steps - self.first

    def __iter__(self) -> Iterator[Integers]:
        step = self.first
        while step < self.schedule.steps:
            begin = step - step % self.batches
            for batch in self._window(begin)[step - begin:]:
                yield batch[self.mine]
                step += 1

    def _window(self, begin: int) -> Integers:
        """Positions of the window that starts with step `begin`, in the order they are read: [steps, batch_size]."""
        end = min(begin + self.batches, self.schedule.steps)
        positions = np.arange(self.schedule.positions(begin).start, self.schedule.positions(end - 1).stop)
        by_length = np.argsort(self.lengths[self.stream.indices(positions)], kind="stable")
        deal = Permutation(end - begin, key(self.stream.seed, "window", self.stream.phase, begin))
        return positions[by_length].reshape(end - begin, -1)[deal(np.arange(end - begin))]
