"""From positions to batches: the dataset that loader workers run, and the torch DataLoader."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]  # PR_SET_PDEATHSIG
from torch.utils.data import DataLoader, Dataset, default_collate

from drumbeat.data.cache import Pixels
from drumbeat.data.fork import FORK
from drumbeat.data.images import UNREADABLE
from drumbeat.data.mixing import Mixing
from drumbeat.data.order import Integers, Schedule, keys, shard

MOST_IN_A_ROW = 100
"""How many samples are tried instead of an unreadable one."""

Transform = Callable[[Any], Any]


class Samples(Protocol):
    """A map-style dataset of (input, target) pairs."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class HasPixels(Protocol):
    """A dataset of images that does not need PIL: pixels uint8 [H, W] or [H, W, 3] by index, and all class numbers."""

    labels: Integers

    def pixels(self, index: int, /) -> Pixels: ...


@runtime_checkable
class OnPixels(Protocol):
    """A transform that does not need PIL."""

    def pixels(self, pixels: Pixels, /) -> Pixels: ...


@runtime_checkable
class WholeBatches(Protocol):
    """A dataset that can also return whole batches, without randomness, which is faster than single samples."""

    def fetch(self, indices: Integers, /) -> tuple[Any, Any]: ...


class Batch(NamedTuple):
    """Collated samples, with their positions and indices. A tuple, so that torch can pin its memory."""

    inputs: Any
    targets: Any
    """With mixing, {"own": targets, "partner": targets, "kept": float32 [b]}."""
    positions: Tensor
    """int64 [b]: positions in the stream."""
    indices: Tensor
    """int64 [b]: indices of the samples in the dataset."""
    replaced: Tensor
    """bool [b]: whether the sample was unreadable and another one is used instead."""


class BatchFetcher(Dataset[Batch]):
    """Positions of a stream -> a batch, which depends only on the positions, not on the process.

    `indices` maps positions to samples. If `seed` is given, the generators of torch, numpy and Python are seeded for
    each sample with (seed, "augment", phase, position), so random transforms and datasets give the same at any world
    size. With `mixing`, each input is mixed with its partner's, which is read as well if it is not in the batch. With
    `skip_unreadable`, the next readable sample of the dataset is used instead of an unreadable one.
    """

    def __init__(self, samples: Samples, *, indices: Callable[[Integers], Integers],
                 transforms: Sequence[Transform] = (), seed: int | None = None, phase: int = 0,
                 mixing: Mixing | None = None, skip_unreadable: bool = False) -> None:
        self.samples = samples
        self.indices = indices
        self.transforms = transforms
        self.seed = seed
        self.phase = phase
        self.mixing = mixing
        self.skip_unreadable = skip_unreadable
        self.whole = not transforms and isinstance(samples, WholeBatches)
        self.on_pixels = bool(transforms) and isinstance(samples, HasPixels) and isinstance(transforms[0], OnPixels)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        try:
            return self._batch(positions)
        except StopIteration as error:  # which torch's loader would take for the end of the data
            raise RuntimeError("the dataset has raised StopIteration: it reads from an iterator that has ended. A "
                               "sample must depend on its index alone") from error

    def _batch(self, positions: Sequence[int]) -> Batch:
        where = np.asarray(positions, dtype=np.int64)
        if self.mixing is None or self.seed is None:
            return self._plain(where)
        partners = self.mixing.partners(where)
        everyone, rows = np.unique(np.concatenate([where, partners]), return_inverse=True)
        whole = self._plain(everyone)
        own, other = torch.from_numpy(rows[:len(where)]), torch.from_numpy(rows[len(where):])
        inputs, kept = self.mixing.mix(whole.inputs[own], whole.inputs[other], where, self.seed, self.phase)
        targets = {"own": whole.targets[own], "partner": whole.targets[other], "kept": kept}
        return Batch(inputs, targets, whole.positions[own], whole.indices[own], whole.replaced[own])

    def __getitem__(self, position: int) -> Batch:
        return self.__getitems__([position])

    def _plain(self, where: Integers) -> Batch:
        which = self.indices(where)
        replaced = np.zeros(len(where), dtype=np.bool_)
        if self.whole:
            inputs, targets = cast(WholeBatches, self.samples).fetch(which)
        else:
            seeds = [None] * len(where) if self.seed is None else (
                keys(self.seed, "augment", self.phase, positions=where).tolist())
            pairs = []
            with one_thread():
                for row, (index, seed) in enumerate(zip(which.tolist(), seeds, strict=True)):
                    pair, replaced[row] = self._readable(index, seed)
                    pairs.append(pair)
            inputs, targets = default_collate(pairs)
        return Batch(inputs, targets, *map(torch.from_numpy, (where, which, replaced)))

    def _readable(self, index: int, seed: int | None) -> tuple[tuple[Any, Any], bool]:
        """A sample, or the next readable one of the dataset, and whether it was replaced."""
        if not self.skip_unreadable:
            return self._sample(index, seed), False
        n = len(self.samples)
        for ahead in range(min(n, MOST_IN_A_ROW)):
            try:
                return self._sample((index + ahead) % n, seed), ahead > 0
            except UNREADABLE as error:
                if ahead == 0:
                    print(f"skipped sample {index}: {str(error) or type(error).__name__}", file=sys.stderr, flush=True)
        raise ValueError(f"none of the {min(n, MOST_IN_A_ROW)} samples from number {index} on can be read")

    def _sample(self, index: int, seed: int | None) -> tuple[Any, Any]:
        if seed is not None:
            seed_generators(seed)
        transforms = self.transforms
        if self.on_pixels:
            images, first = cast(HasPixels, self.samples), cast(OnPixels, transforms[0])
            value: Any = first.pixels(images.pixels(index))
            target, transforms = int(images.labels[index]), transforms[1:]
            if not transforms:
                return pixels_as_tensor(value), target
            value = Image.fromarray(value)
        else:
            value, target = self.samples[index]
        for transform in transforms:
            value = transform(value)
        return as_tensor(value) if isinstance(value, Image.Image) else value, target


def seed_generators(seed: int) -> None:
    """Seeds the generators of torch (on the CPU), numpy and Python, in about 10 us."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits torch to one thread, as in a loader process: sums over a large image, and so its contrast, depend on the
    number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def as_tensor(image: Image.Image) -> Tensor:
    """A PIL image as uint8 [C, H, W]."""
    return pixels_as_tensor(np.array(image))


def pixels_as_tensor(pixels: Pixels) -> Tensor:
    """Pixels [H, W] or [H, W, C] as [C, H, W], without a copy if possible."""
    values = np.require(pixels, requirements=["C", "W"])
    return torch.from_numpy(values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1)))


class ShardedBatchSampler:
    """The positions that one rank reads in each step of a phase, from step `first` on."""

    def __init__(self, schedule: Schedule, *, rank: int, world_size: int, first: int = 0) -> None:
        self.schedule = schedule
        self.part = shard(schedule.batch_size, rank, world_size)
        self.first = first

    def __len__(self) -> int:
        return self.schedule.steps - self.first

    def __iter__(self) -> Iterator[range]:
        for step in range(self.first, self.schedule.steps):
            yield self.schedule.positions(step)[self.part.start:self.part.stop]


def chunks(n: int, size: int, *, rank: int, world_size: int) -> list[range]:
    """The parts of an evaluation for one rank: fixed chunks of `size`; chunk j goes to rank j mod `world_size`."""
    return [range(start, min(start + size, n)) for start in range(rank * size, n, world_size * size)]


def batches(fetch: BatchFetcher, positions: Iterable[Any], *, workers: int, pin_memory: bool) -> Iterable[Batch]:
    """One batch for each item of `positions`, prefetched by `workers` processes, or loaded in this process if 0."""
    return DataLoader(fetch, batch_sampler=positions, num_workers=workers, collate_fn=_unchanged, pin_memory=pin_memory,
                      prefetch_factor=4 if workers else None, worker_init_fn=_end_with_rank,
                      multiprocessing_context=FORK if workers else None)  # type: ignore[arg-type]


def _end_with_rank(number: int) -> None:
    """Makes the kernel kill a loader process when its rank ends. Otherwise the process would check only every five
    seconds, and keep the rank's connections open until then, so that other ranks would not notice that it has ended."""
    _prctl_pr_set_pdeathsig(signal.SIGKILL)


def _unchanged(batch: Any) -> Any:
    return batch


def error_message(error: BaseException) -> str:
    """The message of an error, without the traceback that torch adds to errors of loader processes."""
    message = str(error)
    if message.startswith("Caught "):
        lines, kind = message.strip().splitlines(), type(error).__name__
        named = [number for number, line in enumerate(lines) if line.partition(": ")[0].rpartition(".")[2] == kind]
        message = "\n".join(lines[named[-1] if named else -1:]).partition(": ")[2]
    return message
