"""Other streams than `order.Stream`: weighted sampling, balanced classes, and batches of samples of similar length.

    data:
      sampling: {_target_: drumbeat.data.ClassBalanced}

The trainer passes the dataset, the seed and the phase to a stream, and the config the other arguments. Like
`order.Stream`, each is a function of the position without state, so the order is the same at any world size and after
any number of restarts. They have no epochs of the dataset: an epoch of `order.Schedule` is then n samples read. `rule`
describes in one sentence what replaces "each sample once per epoch".
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drumbeat.data.alias import AliasTable, Floats, whole_weights
from drumbeat.data.order import Integers, Permutation, Stream, key, keys, shard
from drumbeat.data.schedule import Schedule


class SampleStream(Protocol):
    """The interface of a stream: the samples at the positions, int64 of any shape to int64 of the same shape."""

    @property
    def seed(self) -> int: ...

    @property
    def phase(self) -> int: ...

    def indices(self, positions: Integers, /) -> Integers: ...


def labels_of(samples: Any) -> Integers:
    """The class number of each sample, int64 [n]: `samples.labels`, or torchvision's `samples.targets`.

    Raises ValueError if there is neither, or not one integer from 0 on for each sample.
    """
    given = getattr(samples, "labels", None)
    if given is None:
        given = getattr(samples, "targets", None)
    if given is None:
        raise ValueError(f"{type(samples).__name__} does not have the classes of its samples; give it an attribute "
                         "`labels`, a numpy array with one integer for each sample")
    labels = np.asarray(given)
    if labels.shape != (len(samples),) or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise ValueError(f"the labels of {type(samples).__name__} are {labels.dtype} {list(labels.shape)}; sampling by "
                         f"class needs one class number, from 0 on, for each of the {len(samples)} samples")
    return labels.astype(np.int64)


def classes_of(samples: Any) -> list[str]:
    """The names of the classes: `samples.classes`, or the numbers up to the largest label as text.

    Raises ValueError for a label without a name, and like `labels_of`.
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
    """Draws a sample for each position, with replacement, with a probability proportional to its weight.

    `class_weights` is the weight of each sample of a class, by the name of the class; 1 / (size of the class) balances
    the classes. Alternatively, `file` has the weight of each sample in the order of the dataset: a .npy array of n
    numbers, or text with one number on each line. Without both, the weights are those of the dataset, `samples.weights`
    (`drumbeat.data.ImageTable` reads them from a column). Takes 24 bytes per sample.

    Raises ValueError for unknown or missing classes, a wrong number of weights, a negative weight, and if all weights
    are zero; OSError for a file that cannot be read.
    """

    def __init__(self, samples: Any, seed: int, phase: int, *, class_weights: Mapping[str, float] | None = None,
                 file: str | None = None) -> None:
        self.seed = seed
        self.phase = phase
        if class_weights is not None and file is None:
            weights = _class_weights(samples, class_weights)
        elif file is not None and class_weights is None:
            weights = _read_weights(file, len(samples))
        elif file is None and getattr(samples, "weights", None) is not None:
            weights = np.asarray(samples.weights, dtype=np.float64)
        else:
            raise ValueError("Weighted needs either class_weights, as in {normal: 1, pneumonia: 3}, or a file with one "
                             "weight for each sample, or a dataset that has weights")
        self.table = AliasTable.build(whole_weights(weights))

    @property
    def rule(self) -> str:
        """What replaces "each sample once per epoch"."""
        return "each position draws a sample by its weight, with replacement: how often each is read is random"

    def indices(self, positions: Integers) -> Integers:
        """The samples at the positions: int64 of any shape to int64 of the same shape.

        Raises ValueError for a negative position.
        """
        return self.table.draw(keys(self.seed, "weighted", self.phase, positions=positions))


def _class_weights(samples: Any, class_weights: Mapping[str, float]) -> Floats:
    labels, classes = labels_of(samples), classes_of(samples)
    given = {str(name): weight for name, weight in class_weights.items()}
    for name in given:
        if name not in classes:
            close = difflib.get_close_matches(name, classes, n=1)
            raise ValueError(f"class_weights has '{name}', which is not a class of the dataset. "
                             + (f"Did you mean '{close[0]}'? " if close else "") + f"Its classes: {_listed(classes)}")
    missing = [name for name in classes if name not in given]
    if missing:
        raise ValueError(f"class_weights has no weight for {_listed(missing)}; give every class a weight, 0 for never")
    for name, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"the weight {weight!r} of '{name}' in class_weights is not a number")
        if not 0 <= weight < math.inf:
            raise ValueError(f"the weight {weight} of '{name}' in class_weights is not a positive number or 0")
    return np.array([given[name] for name in classes], dtype=np.float64)[labels]


MOST_BYTES_EACH = 64
"""Bytes of a line of weights."""


def _read_weights(file: str, n: int) -> Floats:
    path = Path(file)
    try:
        if path.suffix == ".npy":
            weights: Floats = np.load(path, mmap_mode="r", allow_pickle=False)  # the header may claim any size
            weights = weights.astype(np.float64) if weights.shape == (n,) else weights
        elif path.stat().st_size > MOST_BYTES_EACH * (n + 1):
            raise ValueError(f"it has {path.stat().st_size:,} bytes for {n:,} samples")
        else:
            weights = np.array([float(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()])
    except FileNotFoundError:
        raise
    except Exception as error:  # of a damaged header NumPy raises almost anything
        raise ValueError(f"the weights in {file} cannot be read: {error}; it must be a .npy array of numbers, or text "
                         "with one number on each line") from error
    if weights.shape != (n,):
        raise ValueError(f"{file} has weights of shape {list(weights.shape)}, but the dataset has {n} samples; give "
                         "one weight for each, in the order of the dataset")
    return weights


def _listed(names: Iterable[str], most: int = 20) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class ClassBalanced:
    """Classes alternate: position p belongs to class p mod C, and each class has its own shuffled epochs.

    Takes 8 bytes per sample, and about 0.15 ms per block and class. If the dataset does not name its classes, they are
    the labels that occur. Raises ValueError for a class without samples, and like `labels_of`.
    """

    def __init__(self, samples: Any, seed: int, phase: int) -> None:
        self.seed = seed
        self.phase = phase
        labels, classes = labels_of(samples), classes_of(samples)
        sizes = np.bincount(labels, minlength=len(classes))
        empty = [name for name, size in zip(classes, sizes, strict=True) if not size]
        if empty and _named_classes(samples):
            raise ValueError(f"classes cannot be balanced, because some have no samples: {_listed(empty)}; use a "
                             "dataset with samples of each class")
        self.members = np.argsort(labels, kind="stable")
        self.sizes = sizes[sizes > 0]
        self.starts = np.cumsum(self.sizes) - self.sizes

    @property
    def rule(self) -> str:
        """What replaces "each sample once per epoch"."""
        return (f"{len(self.sizes)} classes alternate; within a class, each sample is read once before any is read "
                "again")

    def indices(self, positions: Integers) -> Integers:
        """The samples at the positions: int64 of any shape to int64 of the same shape.

        Raises ValueError for a negative position.
        """
        flat = np.asarray(positions, dtype=np.int64).reshape(-1)
        turns, numbers = np.divmod(flat, len(self.sizes))
        picked = np.empty_like(flat)
        by_class = np.argsort(numbers, kind="stable")
        for chosen in np.split(by_class, np.flatnonzero(np.diff(numbers[by_class])) + 1):
            if len(chosen):
                number = int(numbers[chosen[0]])
                stream = Stream(int(self.sizes[number]), key(self.seed, "class", number), self.phase)
                picked[chosen] = self.members[self.starts[number] + stream.indices(turns[chosen])]
        return picked.reshape(np.shape(positions))


class LengthBuckets:
    """The positions that one rank reads in each step from step `first` on, in batches of samples of similar length.

    Used instead of `loader.ShardedBatchSampler`. The samples of `batches` steps, a window, are sorted by length and
    split into batches, which are assigned to the window's steps at random. The last window of a phase is shorter, so
    that it ends with the phase; a phase that ends early reads only a part of its last one, so that it can be continued.
    The sample at a position and its augmentation do not change. Around an epoch boundary,
    up to a window of samples is read early or late: each position is read once per phase, not per epoch.

    A rank reads every world_size-th position of the sorted batch, as many as in its `order.shard`, so that all ranks
    read similar lengths and rarely wait for each other. It needs memory for one window, which is sorted once; a start
    in the middle of a window sorts that window first.

    Args:
        lengths: length of each sample of the dataset, [n].
        batches: steps in a window.

    Raises ValueError for lengths that do not fit the dataset, a window without steps, and more ranks than samples in a
    batch.
    """

    def __init__(self, schedule: Schedule, stream: SampleStream, lengths: Sequence[float] | NDArray[Any], *,
                 batches: int, rank: int, world_size: int, first: int = 0) -> None:
        self.schedule = schedule
        self.stream = stream
        self.lengths = np.asarray(lengths)
        self.batches = batches
        self.first = first
        if self.lengths.shape != (schedule.n,):
            raise ValueError(f"lengths of shape {list(self.lengths.shape)} do not fit a dataset of {schedule.n} "
                             "samples")
        if batches < 1:
            raise ValueError(f"a window needs at least 1 batch, not {batches}")
        part = shard(schedule.batch_size, rank, world_size)
        even = schedule.batch_size // world_size
        self.mine = rank + world_size * np.arange(even)
        if len(part) > even:  # the remaining samples go to the ranks whose shard is larger by one
            self.mine = np.append(self.mine, even * world_size + part.start - even * rank)

    @property
    def rule(self) -> str:
        """What replaces "each sample once per epoch"."""
        return f"each position is read once per phase, within {self.batches} steps of its own step"

    def __len__(self) -> int:
        return self.schedule.steps - self.first

    def __iter__(self) -> Iterator[Integers]:
        step = self.first
        while step < self.schedule.steps:
            begin = step - (step - self.schedule.changed_at) % self.batches
            for batch in self._window(begin)[step - begin:self.schedule.steps - begin]:
                yield batch[self.mine]
                step += 1

    def _window(self, begin: int) -> Integers:
        """The positions of the window that starts at step `begin`, in the order of reading: [steps, batch_size]."""
        end = min(begin + self.batches, self.schedule.planned or self.schedule.steps)
        positions = np.arange(self.schedule.start(begin), self.schedule.start(end))
        by_length = np.argsort(self.lengths[self.stream.indices(positions)], kind="stable")
        deal = Permutation(end - begin, key(self.stream.seed, "window", self.stream.phase, begin))
        return positions[by_length].reshape(end - begin, -1)[deal(np.arange(end - begin))]


class InTurn:
    """The items of several samplers of one length, in turn: the first ones of all, then the second ones."""

    def __init__(self, samplers: Sequence[Iterable[Any]]) -> None:
        self.samplers = samplers

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(zip(*self.samplers, strict=True))
