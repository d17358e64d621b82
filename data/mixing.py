"""Samples mixed with their partners: Mixup and CutMix as functions of positions, so the same at any width.

The partner of position p is p ^ 1, its neighbour. That is as good as a partner drawn at random: the order of the set is
random already, so who stands next to a sample is a fair draw among the others, and a new one in each epoch. And it is
cheaper: both of a pair are mostly read by the same rank in the same step, where a partner from elsewhere in the batch
would have to be read and augmented once more. It is not as good where neighbours are told apart by more than chance: in
`sampling.ClassBalanced` with an even number of classes, class c meets class c ^ 1 alone.

How much of itself a sample keeps, lambda, is drawn for each position and not once for a batch as in the papers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drumbeat.data.order import Integers, keys

Floats = NDArray[np.float64]

CELLS = 2**14
"""Cells into which the table of a Beta distribution cuts the weights from 0 to 1/2."""

PARTS = 2**8
"""Mixup's weights are multiples of 1 / PARTS, so that bytes are mixed in whole numbers of 16 bits."""


@dataclass(frozen=True, kw_only=True)
class Mixing(ABC):
    """What both ways of mixing share: partners and weights."""

    alpha: float
    """Weights are drawn from Beta(alpha, alpha): below 1 they are mostly near 0 or 1, at 1 uniform, above near 1/2."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha must be positive, not {self.alpha}; to mix nothing, leave the mixing out")

    def partners(self, positions: Integers) -> Integers:
        """The positions to mix with, int64 of any shape to int64 of that shape; each is its partner's partner."""
        return np.bitwise_xor(np.asarray(positions, dtype=np.int64), 1)

    def weights(self, positions: Integers, seed: int, phase: int) -> Floats:
        """How much of itself each position keeps, int64 of any shape to float64 of that shape in [0, 1].

        The inverse of the distribution function by linear interpolation between CELLS knots: off by less than 2**-15, a
        hundredth of a gray level. It multiplies and adds, element by element, so a block's size cannot show in it.

        Raises ValueError for a negative position.
        """
        words = keys(seed, "mix", phase, positions=positions)
        chances = (words >> 11).astype(np.float64) * 2.0**-54  # [0, 1/2): the distribution is symmetric
        cells = np.searchsorted(self._chances, chances, side="right") - 1
        low = self._chances[cells]
        inside = (chances - low) / (self._chances[cells + 1] - low)
        below = (cells + inside) * (0.5 / CELLS)
        return np.where(words & 1, 1 - below, below)

    @cached_property
    def _chances(self) -> Floats:
        """The distribution function of Beta(alpha, alpha) at k / (2 CELLS), k from 0 to CELLS: float64 [CELLS + 1].

        By the series of positive terms in the NIST Handbook of Mathematical Functions, 8.17.8, with a = b, scaled to
        1/2 at 1/2, which spares the Beta function.
        """
        x = np.linspace(0, 0.5, CELLS + 1)
        term, series, n = np.ones_like(x), np.ones_like(x), 0
        while term[-1] > 1e-17 * series[-1]:
            term *= x * ((2 * self.alpha + n) / (self.alpha + 1 + n))
            series += term
            n += 1
        values: Floats = np.maximum.accumulate((4 * x * (1 - x)) ** self.alpha * series)
        values /= values[-1]
        values *= 0.5  # exactly 1/2 at the end, so that every chance has its cell
        return values

    @abstractmethod
    def mix(self, inputs: Tensor, partners: Tensor, positions: Integers, seed: int, phase: int
            ) -> tuple[Tensor, Tensor]:
        """The inputs mixed with their partners' inputs, in their dtype, and how much they keep: float32 [b].

        `inputs` and `partners` are [b, C, H, W], uint8 or floating, `positions` int64 [b]; they stay as they are. The
        targets are to be weighted alike: lambda for the sample's own, 1 - lambda for its partner's.

        Raises ValueError where shapes or dtypes do not fit.
        """

    @staticmethod
    def _check(inputs: Tensor, partners: Tensor, positions: Integers) -> None:
        if inputs.shape != partners.shape or inputs.dtype != partners.dtype:
            raise ValueError(f"inputs {inputs.dtype} {list(inputs.shape)} cannot be mixed with "
                             f"{partners.dtype} {list(partners.shape)}; transforms must make samples of one size")
        if inputs.ndim != 4 or np.shape(positions) != (len(inputs),):
            raise ValueError(f"inputs [b, C, H, W] at b positions are mixed, not {list(inputs.shape)} at "
                             f"{list(np.shape(positions))}")
        if inputs.dtype != torch.uint8 and not inputs.is_floating_point():
            raise ValueError(f"inputs must be uint8 or floating to be mixed, not {inputs.dtype}")


@dataclass(frozen=True, kw_only=True)
class Mixup(Mixing):
    """lambda times the sample and 1 - lambda times its partner: Zhang et al., "mixup: Beyond empirical risk
    minimization", 2018.

    lambda is rounded to a multiple of 1/256, and the rounded one is what is used and told. Bytes are then mixed in
    whole numbers and rounded to nearest, halves up: off by 1/2 at most. Floats of fewer than 32 bits are mixed in 32.
    """

    alpha: float = 0.2

    def mix(self, inputs: Tensor, partners: Tensor, positions: Integers, seed: int, phase: int
            ) -> tuple[Tensor, Tensor]:
        self._check(inputs, partners, positions)
        parts = np.rint(self.weights(positions, seed, phase) * PARTS).astype(np.int64)
        mixed = torch.empty_like(inputs)
        blend = _blend_bytes if inputs.dtype == torch.uint8 else _blend_floats
        for row, keep in enumerate(parts.tolist()):  # one by one, so that what lies between stays in the cache
            mixed[row] = blend(inputs[row], partners[row], keep)
        return mixed, torch.from_numpy((parts / PARTS).astype(np.float32)).to(inputs.device)


def _blend_bytes(own: Tensor, other: Tensor, keep: int) -> Tensor:
    """The sum, at most 255 * 256 + 128, wraps into the sign bit. Shifted, it lies in the lower byte, which is a uint8's
    all: half the memory of 32 bits, and twice as fast."""
    total = own.to(torch.int16).mul_(keep)
    total += other.to(torch.int16).mul_(PARTS - keep)
    total += PARTS // 2
    return total.bitwise_right_shift_(8).to(torch.uint8)


def _blend_floats(own: Tensor, other: Tensor, keep: int) -> Tensor:
    wide = torch.promote_types(own.dtype, torch.float32)
    return (own.to(wide) * (keep / PARTS)).add_(other.to(wide) * (1 - keep / PARTS))


@dataclass(frozen=True, kw_only=True)
class CutMix(Mixing):
    """A box of the partner's pixels in the sample: Yun et al., "CutMix: Regularization strategy to train strong
    classifiers with localizable features", 2019.

    The box has the picture's shape and 1 - lambda of its area, its sides rounded to pixels, and lies wholly inside,
    anywhere alike; the paper's may hang over the edge. The lambda told is the exact part of the area that is left.
    """

    alpha: float = 1.0

    def mix(self, inputs: Tensor, partners: Tensor, positions: Integers, seed: int, phase: int
            ) -> tuple[Tensor, Tensor]:
        self._check(inputs, partners, positions)
        height, width = inputs.shape[-2:]
        sides = np.sqrt(1 - self.weights(positions, seed, phase))
        heights, widths = (np.rint(sides * side).astype(np.int64) for side in (height, width))
        places = keys(seed, "mix", phase, "place", positions=positions)
        tops = (places >> 32) * (height - heights + 1).astype(np.uint64) >> 32
        lefts = (places & 0xFFFFFFFF) * (width - widths + 1).astype(np.uint64) >> 32
        mixed = inputs.clone()
        boxes = zip(tops.tolist(), lefts.tolist(), heights.tolist(), widths.tolist(), strict=True)
        for row, (top, left, high, wide) in enumerate(boxes):
            box = row, slice(None), slice(top, top + high), slice(left, left + wide)
            mixed[box] = partners[box]
        kept = 1 - heights * widths / (height * width)
        return mixed, torch.from_numpy(kept.astype(np.float32)).to(inputs.device)
