"""Checks samples one by one before a run: whether each can be read, what its file is, and what a model would get."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.data import DataLoader, Dataset

from drumbeat.data.bar import Bar
from drumbeat.data.cache import TOP
from drumbeat.data.fork import FORK
from drumbeat.data.images import ImageFiles
from drumbeat.data.loader import BatchFetcher, Samples, one_thread
from drumbeat.data.order import Integers, Permutation, key
from drumbeat.data.pixels import LUMA, read_header
from drumbeat.data.splits import underlying
from drumbeat.data.structure import leaves
from drumbeat.data.user_code import SampleError, reason
from drumbeat.trainers.build import Sets

CHECKED = 200
"""The number of samples of each set that are checked, unless all are."""
IN_MEMORY = 100_000
"""The same for sets that are in memory."""
CHUNK = 16
"""Samples that a loader worker checks at a time."""
CHUNKS_PER_WORKER = 4
"""With fewer chunks than this for each worker, fewer workers are started, or none."""
WHITE = {torch.uint8: TOP[8], torch.uint16: TOP[16]}
"""The values of white; in images of floats it is 1."""
SIDE = 16
"""Sides of the miniature that is compared to find copies of an image."""


@dataclass(frozen=True)
class SampleCheck:
    """The result for one sample."""

    index: int
    error: str = ""
    size: tuple[int, int] = (0, 0)
    """Width and height of the image file."""
    mode: str = ""
    sums: tuple[float, ...] = ()
    """For each channel, after the evaluation's transforms: sum of pixel values in 0..1, sum of squares, count."""
    digest: bytes = b""
    """Of the input after these transforms."""
    miniature: bytes = b""
    """The input, if it is an image with any contrast, at SIDE x SIDE in gray with mean 0 and norm 1: float16. It
    changes little if the image is resized, compressed or made brighter."""
    constant: bool = False
    """Whether all pixels of the image have the same value."""
    nonfinite: bool = False
    """Whether the input or the target has a NaN or Inf."""
    levels: int | None = None
    """The number of different values, if the file has 16 bits and is read with 8."""


def check_samples(sets: Sets, samples: Samples, name: str, *, everything: bool) -> Iterator[SampleCheck]:
    """Reads samples of a set in loader workers, as an evaluation does, with a progress bar."""
    checks = _Checks(sets, samples)
    chosen = _chosen(samples, IN_MEMORY if checks.fetch.whole else CHECKED, everything)
    chunks = [chosen[start:start + CHUNK] for start in range(0, len(chosen), CHUNK)]
    workers = min(len(os.sched_getaffinity(0)), 8, len(chunks) // CHUNKS_PER_WORKER)
    loader = DataLoader(checks, batch_size=None, sampler=chunks, num_workers=workers,
                        multiprocessing_context=FORK if workers else None)
    with Bar() as bar:
        for some in loader:
            bar.advance(f"reading {name}", len(some), len(chosen))
            yield from some


def _chosen(samples: Samples, most: int, everything: bool) -> Integers:
    """The samples to check: all, or a random choice from the set."""
    n = len(samples)
    if everything or n <= most:
        return np.arange(n)
    return np.sort(Permutation(n, key(0, "doctor"))(np.arange(most)))


class _Checks(Dataset[list[SampleCheck]]):
    """Checks samples in loader workers."""

    def __init__(self, sets: Sets, samples: Samples) -> None:
        self.samples = samples
        self.fetch = BatchFetcher(samples, indices=lambda positions: positions, transforms=sets.evaluate_transforms,
                                  collate=sets.collate)

    def __getitem__(self, chosen: Integers) -> list[SampleCheck]:
        with one_thread():
            return [self.check(int(index)) for index in chosen]

    def check(self, index: int) -> SampleCheck:
        """Reads one sample."""
        try:
            size, mode = _header(self.samples, index)
            batch = self.fetch[index]
        except (OSError, ValueError) as error:
            return SampleCheck(index, error=reason((isinstance(error, SampleError) and error.__cause__) or error))
        values = [one for one in leaves((batch.inputs, batch.targets)) if isinstance(one, Tensor)]
        nonfinite = any(one.is_floating_point() and not bool(one.isfinite().all()) for one in values)
        inputs = batch.inputs
        image = isinstance(inputs, Tensor) and inputs.dim() == 4
        constant = image and bool((inputs == inputs.flatten(2)[..., :1, None]).all())
        reduced = mode.startswith("I") and image and inputs.dtype == torch.uint8
        return SampleCheck(index, size=size, mode=mode, digest=_digest(inputs), constant=constant, nonfinite=nonfinite,
                           sums=_sums(inputs[0]) if image else (),
                           miniature=b"" if constant or nonfinite or not image else miniature(inputs[0]).tobytes(),
                           levels=len(inputs.unique()) if reduced else None)


def miniature(image: Tensor) -> NDArray[np.float16]:
    """[C, H, W] -> float16 [SIDE * SIDE]; see `SampleCheck.miniature`."""
    values = image.double()
    if len(values) == 3:  # the luminance, which JPEG keeps best
        values = values * values.new_tensor(LUMA)[:, None, None]
    small = adaptive_avg_pool2d(values.sum(0, keepdim=True), SIDE).flatten()
    small -= small.mean()
    return np.asarray((small / small.norm().clamp(min=1e-9)).numpy(), dtype=np.float16)


def _sums(image: Tensor) -> tuple[float, ...]:
    pixels = image.double() / WHITE.get(image.dtype, 1)
    parts = [(float(one.sum()), float((one * one).sum()), float(one.numel())) for one in pixels]
    return tuple(value for part in parts for value in part)


def _digest(inputs: Any) -> bytes:
    """Of all tensors in the input, with their shapes; empty if it has none."""
    state, tensors = blake2b(digest_size=16), [one for one in leaves(inputs) if isinstance(one, Tensor)]
    for one in tensors:
        state.update(f"{one.dtype} {list(one.shape)}".encode())
        state.update(one.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return state.digest() if tensors else b""


def _header(samples: Samples, index: int) -> tuple[tuple[int, int], str]:
    """The size and mode of a sample's image file."""
    file = file_of(samples, index)
    if file is None:
        return (0, 0), ""
    size, mode, _ = read_header(file)
    return size, mode


def file_of(samples: Any, index: int) -> str | None:
    """The image file of a sample; None if the set, or the set that it is a part of, has no image files."""
    found = underlying(samples, ImageFiles, np.array([index]))
    return found and found[0].file(int(found[1][0]))
