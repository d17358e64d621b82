"""Repeated augmentation: a stream that reads each sample several times, with another augmentation each time.

    data:
      sampling: {_target_: drumbeat.data.Repeated, times: 3}

Hoffer et al., "Augment your batch: Improving generalization through instance repetition", 2020; Touvron et al.,
"Training data-efficient image transformers", 2021, use it with `times: 3`. As there, an epoch remains as long as
without it: `times` epochs read each sample `times` times.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from drumbeat.data.order import Integers, Stream


class Repeated:
    """Each sample `times` times, within a batch as far as that is possible.

    Positions form blocks of `times` rows of 2 `times` samples. Each row has the samples of the block; those at odd
    places are shifted by two places more in each row, so that the two samples which `data.mixing` mixes, neighbors, are
    never one and the same, and others in each row.

    Raises ValueError if `times` is less than 1.
    """

    def __init__(self, samples: Any, seed: int, phase: int, *, times: int = 3) -> None:
        if times < 1:
            raise ValueError(f"times must be at least 1, not {times}")
        self.seed = seed
        self.phase = phase
        self.times = times
        self.once = Stream(len(samples), seed, phase)

    @property
    def rule(self) -> str:
        """What replaces "each sample once per epoch"."""
        return (f"each sample is read {self.times} times, with another augmentation each time, before the next ones; "
                f"{self.times} epochs read each sample {self.times} times, but for up to {2 * self.times} at their end")

    def indices(self, positions: Integers) -> Integers:
        """The samples at the positions: int64 of any shape to int64 of the same shape.

        Raises ValueError for a negative position.
        """
        width = 2 * self.times
        blocks, within = np.divmod(np.asarray(positions, dtype=np.int64), width * self.times)
        rows, places = np.divmod(within, width)
        return self.once.indices(blocks * width + np.where(places % 2, (places + 2 * rows) % width, places))
