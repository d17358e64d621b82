"""From positions to batches: what loader workers run, and the torch DataLoader around it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from data.order import Integers, Timetable, keys, share

Transform = Callable[[Any], Any]


class Samples(Protocol):
    """A map-style dataset of (input, target) pairs."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class WholeBatches(Protocol):
    """A dataset that can also hand out whole batches, without any randomness: faster than sample by sample."""

    def fetch(self, indices: Integers, /) -> tuple[Any, Any]: ...


class Batch(NamedTuple):
    """Collated samples, and which they are. A tuple, so that torch can pin its memory."""

    inputs: Any
    targets: Any
    positions: Tensor
    """int64 [b]: positions in the stream."""
    indices: Tensor
    """int64 [b]: samples of the set."""


class Fetch(Dataset[Batch]):
    """Positions of a stream -> a batch. Everything in it is a function of the positions, in whatever process it runs.

    `indices` maps positions to samples. Where `seed` is given, the generators of torch, numpy and Python are seeded for
    each sample by (seed, "augment", phase, position), so random transforms and datasets do the same at any width.
    """

    def __init__(self, samples: Samples, *, indices: Callable[[Integers], Integers],
                 transforms: Sequence[Transform] = (), seed: int | None = None, phase: int = 0) -> None:
        self.samples = samples
        self.indices = indices
        self.transforms = transforms
        self.seed = seed
        self.phase = phase

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        where = np.asarray(positions, dtype=np.int64)
        which = self.indices(where)
        if not self.transforms and isinstance(self.samples, WholeBatches):
            inputs, targets = self.samples.fetch(which)
            return Batch(inputs, targets, torch.from_numpy(where), torch.from_numpy(which))
        if self.seed is None:
            pairs = [self._sample(index) for index in which.tolist()]
        else:
            seeds = keys(self.seed, "augment", self.phase, positions=where).tolist()
            pairs = [self._seeded(index, seed) for index, seed in zip(which.tolist(), seeds, strict=True)]
        inputs, targets = default_collate(pairs)
        return Batch(inputs, targets, torch.from_numpy(where), torch.from_numpy(which))

    def __getitem__(self, position: int) -> Batch:
        return self.__getitems__([position])

    def _seeded(self, index: int, seed: int) -> tuple[Any, Any]:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        return self._sample(index)

    def _sample(self, index: int) -> tuple[Any, Any]:
        value, target = self.samples[index]
        for transform in self.transforms:
            value = transform(value)
        return as_tensor(value) if isinstance(value, Image.Image) else value, target


def as_tensor(image: Image.Image) -> Tensor:
    """A PIL image as uint8 [C, H, W]."""
    values = np.array(image)
    return torch.from_numpy(values[None] if values.ndim == 2 else values.transpose(2, 0, 1).copy())


class Shares:
    """The positions one rank reads in each step of a phase, from step `first` on."""

    def __init__(self, timetable: Timetable, *, rank: int, world_size: int, first: int = 0) -> None:
        self.timetable = timetable
        self.part = share(timetable.batch_size, rank, world_size)
        self.first = first

    def __len__(self) -> int:
        return self.timetable.steps - self.first

    def __iter__(self) -> Iterator[range]:
        for step in range(self.first, self.timetable.steps):
            yield self.timetable.positions(step)[self.part.start:self.part.stop]


def chunks(n: int, size: int, *, rank: int, world_size: int) -> list[range]:
    """The parts of an evaluation that fall to one rank: fixed chunks of `size`, chunk j to rank j mod `world_size`."""
    return [range(start, min(start + size, n)) for start in range(rank * size, n, world_size * size)]


def batches(fetch: Fetch, positions: Iterable[Any], *, workers: int, pin_memory: bool) -> Iterable[Batch]:
    """One batch for each item of `positions`, fetched ahead by `workers` processes, or here where there are none."""
    return DataLoader(fetch, batch_sampler=positions, num_workers=workers, collate_fn=_as_it_is, pin_memory=pin_memory,
                      multiprocessing_context="fork" if workers else None)  # type: ignore[arg-type]


def _as_it_is(batch: Any) -> Any:
    return batch
