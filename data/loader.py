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
from torch import Tensor
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]  # PR_SET_PDEATHSIG
from torch.utils.data import DataLoader, Dataset

from drumbeat.data.fast_path import HasPixels, OnPixels, has_pixels
from drumbeat.data.fork import FORK
from drumbeat.data.mixing import Mixing
from drumbeat.data.order import Integers, keys, shard
from drumbeat.data.pixels import as_image
from drumbeat.data.schedule import Schedule
from drumbeat.data.small_tensors import send_small_tensors
from drumbeat.data.structure import collate as default
from drumbeat.data.structure import describe, is_spatial, mapped, odd_one, pixels_as_tensor, split, stacked, with_sides
from drumbeat.data.user_code import CollateError, SampleError, name_of, reason, sample_error

MOST_IN_A_ROW = 100
"""How many samples are tried instead of an unreadable one."""
BUGS = (NameError, ImportError, NotImplementedError)
"""Errors of the code of a dataset or a transform, and never of a sample. They are not skipped."""
SHOWN = 6
"""How many samples of a batch an error names."""
Transform = Callable[[Any], Any]
Collate = Callable[[list[Any]], Any]
"""Makes a batch of a list of samples; `split` must be able to take it apart."""


class Samples(Protocol):
    """A map-style dataset of samples, as `split` takes them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class WholeBatches(Protocol):
    """A dataset that can also return whole batches, without randomness, which is faster than single samples."""

    def fetch(self, indices: Integers, /) -> tuple[Any, Any]: ...


class Batch(NamedTuple):
    """Collated samples, with their positions and indices."""

    inputs: Any
    targets: Any
    """With mixing, {"own": targets, "partner": targets, "kept": float32 [b]}."""
    positions: Tensor
    """int64 [b]: positions in the stream."""
    indices: Tensor
    """int64 [b]: indices of the samples in the dataset."""
    replaced: Tensor
    """bool [b]: whether the sample was unreadable and another one is used instead."""

    def pin_memory(self) -> Batch:
        """The batch in pinned memory, for torch's loader. torch itself would turn tuples into lists before 2.14."""
        return Batch(*(mapped(_pinned, part) for part in self))


def _pinned(value: Any) -> Any:
    return value.pin_memory() if hasattr(value, "pin_memory") else value


class BatchFetcher(Dataset[Batch]):
    """Positions of a stream -> a batch, which depends only on the positions, not on the process.

    `indices` maps positions to samples. If `seed` is given, the generators of torch, numpy and Python are seeded for
    each sample with (seed, "augment", phase, position), so random transforms and datasets give the same at any world
    size. With `mixing`, each input is mixed with its partner's, which is read as well if it is not in the batch. With
    `skip_unreadable`, the next readable sample of the dataset is used instead of an unreadable one: one for which the
    dataset or a transform raises any exception but one of `BUGS`. `collate` makes a batch of a list of samples, and
    `name` is the dataset's key in the config, for errors. Raises `SampleError` and `CollateError`.
    """

    def __init__(self, samples: Samples, *, indices: Callable[[Integers], Integers],
                 transforms: Sequence[Transform] = (), seed: int | None = None, phase: int = 0,
                 mixing: Mixing | None = None, skip_unreadable: bool = False, collate: Collate | None = None,
                 name: str = "") -> None:
        self.samples = samples
        self.indices = indices
        self.transforms = transforms
        self.seed = seed
        self.phase = phase
        self.mixing = mixing
        self.skip_unreadable = skip_unreadable
        self.collate = collate or default
        self.name = name
        self.whole = collate is None and not transforms and isinstance(samples, WholeBatches)
        self.on_pixels = bool(transforms) and has_pixels(samples) and isinstance(transforms[0], OnPixels)
        self.stacks = self.on_pixels and len(transforms) == 1 and collate is None
        """Whether samples stay arrays until they are a batch: a tensor for each would take as long as a small warp."""

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        try:
            return self._batch(positions)
        except StopIteration as error:  # which torch's loader would take for the end of the data
            raise RuntimeError("the dataset has raised StopIteration: it reads from an iterator that has ended. A "
                               "sample must depend on its index alone") from error

    def _batch(self, positions: Sequence[int]) -> Batch:
        where = np.arange(positions.start, positions.stop, positions.step) if isinstance(positions, range) else (
            np.asarray(positions, dtype=np.int64))
        if self.mixing is None or self.seed is None:
            return self._plain(where)
        partners = self.mixing.partners(where)
        everyone, rows = np.unique(np.concatenate([where, partners]), return_inverse=True)
        whole = self._plain(everyone)
        if not (isinstance(whole.inputs, Tensor) and isinstance(whole.targets, Tensor)):
            raise TypeError("data.mix needs one tensor as the input and one as the target; the batch is "
                            f"{describe((whole.inputs, whole.targets))}")
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
            samples = []
            with one_thread():
                for row, (index, seed) in enumerate(zip(which.tolist(), seeds, strict=True)):
                    sample, replaced[row] = self._readable(index, seed)
                    samples.append(sample)
            try:
                inputs, targets = self._together(samples)
            except Exception as error:
                odd, why = odd_one(samples)
                named = f"sample {which[odd]}" if why else (
                    f"the samples {', '.join(map(str, which[:SHOWN]))}{', ...' * (len(which) > SHOWN)}")
                raise CollateError(f"{named}{self._of} cannot be put into one batch: {why}{reason(error)}") from error
        return Batch(inputs, targets, *map(torch.from_numpy, (where, which, replaced)))

    def _together(self, samples: list[Any]) -> tuple[Any, Any]:
        """The inputs and the targets of a batch."""
        if self.stacks and (inputs := stacked([value for value, _ in samples])) is not None:
            return inputs, default([target for _, target in samples])
        if self.stacks:  # images of several sizes, or with masks
            samples[:] = [(pixels_as_tensor(value) if isinstance(value, np.ndarray) else value, target)
                          for value, target in samples]
        return split(self.collate(samples))

    def _readable(self, index: int, seed: int | None) -> tuple[Any, bool]:
        """A sample, or the next readable one of the dataset, and whether it was replaced."""
        if not self.skip_unreadable:
            return self._sample(index, seed), False
        n = len(self.samples)
        errors = []
        for ahead in range(min(n, MOST_IN_A_ROW)):
            try:
                return self._sample((index + ahead) % n, seed), ahead > 0
            except SampleError as error:
                if isinstance(error.__cause__, BUGS):
                    raise
                if ahead == 0:
                    print(f"skipped {error}", file=sys.stderr, flush=True)
                errors.append(error)
        raise type(errors[0])(f"none of the {len(errors)} samples{self._of} from number {index} on can be read: "
                              f"{errors[0]}") from errors[0]

    def _sample(self, index: int, seed: int | None) -> Any:
        was_read = False
        try:
            if seed is not None:
                seed_generators(seed)
            sample, transforms = self._read(index)
            was_read = True
            return _transformed(sample, transforms)
        except StopIteration:
            raise
        except Exception as error:
            why = reason(error)
            name = name_of(self.samples, index)
            file = f" ({name})" if name and name not in why else ""
            raise sample_error(error, was_read=was_read)(f"sample {index}{self._of}{file}: {why}") from error

    @property
    def _of(self) -> str:
        return f" of {self.name}" if self.name else ""

    def _read(self, index: int) -> tuple[Any, Sequence[Transform]]:
        """A sample of the dataset, and the transforms that are still to be applied."""
        if not self.on_pixels:
            return self.samples[index], self.transforms
        images, first, more = cast(HasPixels, self.samples), cast(OnPixels, self.transforms[0]), self.transforms
        pixels, target = images.pixels(index), images.target(index)
        if not is_spatial(target):
            pixels, more = first.pixels(pixels), more[1:]
        return (as_image(pixels) if more else pixels if self.stacks else pixels_as_tensor(pixels), target), more


def _transformed(sample: Any, transforms: Sequence[Transform]) -> Any:
    """A sample of the same structure. The transforms get its input; with a target that is tied to places in the input,
    (input, target)."""
    if not transforms:
        return sample
    value, target = split(sample)
    if is_spatial(target):
        for transform in transforms:
            value, target = transform((value, target))
    else:
        for transform in transforms:
            value = transform(value)
    return with_sides(sample, value, target)


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


class ShardedBatchSampler:
    """The positions that one rank reads in each step of a phase, from step `first` on."""

    def __init__(self, schedule: Schedule, *, rank: int, world_size: int, first: int = 0) -> None:
        self.schedule = schedule
        self.part = shard(schedule.batch_size, rank, world_size)
        self.first = first

    def __len__(self) -> int:
        return self.schedule.steps - self.first

    def __iter__(self) -> Iterator[range]:
        start, size = self.schedule.start(self.first), self.schedule.batch_size
        for before in range(start, start + len(self) * size, size):
            yield range(before + self.part.start, before + self.part.stop)


def chunks(n: int, size: int, *, rank: int, world_size: int) -> list[range]:
    """The parts of an evaluation for one rank: fixed chunks of `size`; chunk j goes to rank j mod `world_size`."""
    return [range(start, min(start + size, n)) for start in range(rank * size, n, world_size * size)]


def batches(fetch: BatchFetcher, positions: Iterable[Any], *, workers: int, pin_memory: bool) -> Iterable[Batch]:
    """One batch for each item of `positions`, prefetched by `workers` processes, or loaded in this process if 0."""
    if not workers and not pin_memory:  # torch's loader would take 40 us for each batch
        return map(fetch.__getitems__, positions)
    return DataLoader(fetch, batch_sampler=positions, num_workers=workers, collate_fn=_unchanged, pin_memory=pin_memory,
                      prefetch_factor=4 if workers else None, worker_init_fn=_start_worker,
                      multiprocessing_context=FORK if workers else None)  # type: ignore[arg-type]


def _start_worker(number: int) -> None:
    """Sets up a loader process: small tensors are sent through the pipe, and the kernel kills it when its rank ends.
    Otherwise the process would check only every five seconds, and keep the rank's connections open until then, so that
    other ranks would not notice that it has ended."""
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    send_small_tensors()


def _unchanged(batch: Any) -> Any:
    return batch


def error_message(error: BaseException) -> str:
    """The message of an error, with its notes in the first line, and without the traceback that torch adds to errors of
    loader processes."""
    message = str(error)
    if notes := getattr(error, "__notes__", ()):
        first, *more = message.splitlines() or [""]
        message = "\n".join([f"{first} ({'; '.join(notes)})", *more])
    if message.startswith("Caught "):
        lines, kind = message.strip().splitlines(), type(error).__name__
        named = [number for number, line in enumerate(lines) if line.partition(": ")[0].rpartition(".")[2] == kind]
        message = "\n".join(lines[named[-1] if named else -1:]).partition(": ")[2]
    return message
