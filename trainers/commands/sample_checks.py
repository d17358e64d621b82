"""Checks samples one by one before a run: whether each can be read, its size and its pixel statistics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from drumbeat.data.bar import Bar
from drumbeat.data.cache import TOP
from drumbeat.data.fork import FORK
from drumbeat.data.images import ImageFiles
from drumbeat.data.loader import BatchFetcher, Samples
from drumbeat.data.order import Integers, Permutation, key
from drumbeat.data.pixels import read_header
from drumbeat.data.user_code import reason
from drumbeat.trainers.build import Sets

CHECKED = 200
"""The number of samples of each set that are checked, unless all are."""


WHITE = {torch.uint8: TOP[8], torch.uint16: TOP[16]}
"""The values of white; in images of floats it is 1."""


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


def check_samples(sets: Sets, samples: Samples, name: str, *, everything: bool) -> Iterator[SampleCheck]:
    """Reads samples of a set in loader workers, as an evaluation does, with a progress bar."""
    chosen = _chosen(samples, everything)
    loader = DataLoader(_Checks(sets, samples, chosen), batch_size=None,
                         num_workers=min(len(os.sched_getaffinity(0)), 8, len(chosen)), multiprocessing_context=FORK)
    with Bar() as bar:
        for check in loader:
            bar.advance(f"reading {name}", 1, len(chosen))
            yield check


def _chosen(samples: Samples, everything: bool) -> Integers:
    """The samples to check: all, or a random choice from the set."""
    n = len(samples)
    if everything or n <= CHECKED:
        return np.arange(n)
    return np.sort(Permutation(n, key(0, "doctor"))(np.arange(CHECKED)))


class _Checks(Dataset[SampleCheck]):
    """Checks samples in loader workers."""

    def __init__(self, sets: Sets, samples: Samples, chosen: Integers) -> None:
        self.samples = samples
        self.chosen = chosen
        self.fetch = BatchFetcher(samples, indices=lambda positions: positions, transforms=sets.evaluate_transforms,
                                  collate=sets.collate)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> SampleCheck:
        torch.set_num_threads(1)
        index = int(self.chosen[number])
        try:
            size, mode = _header(self.samples, index)
            inputs = self.fetch[index].inputs
        except (OSError, ValueError) as error:
            return SampleCheck(index, error=reason(error.__cause__ or error))
        if not (isinstance(inputs, Tensor) and inputs.dim() == 4):
            return SampleCheck(index, size=size, mode=mode)
        pixels = inputs[0].double() / WHITE.get(inputs.dtype, 1)
        parts = [(float(one.sum()), float((one * one).sum()), float(one.numel())) for one in pixels]
        return SampleCheck(index, size=size, mode=mode, sums=tuple(value for part in parts for value in part))


def _header(samples: Samples, index: int) -> tuple[tuple[int, int], str]:
    """The size and mode of a sample's image file."""
    file = _file(samples, index)
    if file is None:
        return (0, 0), ""
    size, mode, _ = read_header(file)
    return size, mode


def _file(samples: Any, index: int) -> str | None:
    while not isinstance(samples, ImageFiles):
        if not hasattr(samples, "of"):
            return None
        index, samples = int(samples.indices[index]), samples.of
    return samples.file(index)
