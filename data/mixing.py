"""Mixup and CutMix as functions of positions, so that they give the same at any world size.

The partner of position p is p ^ 1, its neighbor. Since the order is shuffled, this is as good as a random partner, and
changes in each epoch. It is also cheaper: a rank usually reads both in the same step, while another partner would have
to be read and augmented again. It is worse if neighbors are not random: with `sampling.ClassBalanced` and an even
number of classes, class c is only mixed with class c ^ 1.

lambda, the weight of the sample itself, is drawn for each position, not once per batch as in the papers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drumbeat.data.order import Integers, keys

Floats = NDArray[np.float64]

CELLS = 2**14
"""Cells of the table of a Beta distribution, between the weights 0 and 1/2."""

PARTS = 2**8
"""Mixup's weights are multiples of 1 / PARTS, so that pixels are mixed with integer arithmetic."""

WIDER = {torch.uint8: torch.int16, torch.uint16: torch.int32}
"""The types in which pixels are mixed."""


class Mixing(ABC):
    """Mixes each sample with a partner."""

    def partners(self, positions: Integers) -> Integers:
        """The positions of the partners: int64 of any shape to int64 of the same shape. Partners are mutual."""
        return np.bitwise_xor(np.asarray(positions, dtype=np.int64), 1)

    @abstractmethod
    def mix(self, inputs: Tensor, partners: Tensor, positions: Integers, seed: int, phase: int
            ) -> tuple[Tensor, Tensor]:
        """The inputs mixed with their partners' inputs, in the same dtype, and lambda: float32 [b].

        `inputs` and `partners` are [b, C, H, W], uint8, uint16 or floating point, and `positions` int64 [b]; they are
        not changed. The targets must be weighted with lambda for the sample and 1 - lambda for its partner.

        Raises ValueError if shapes or dtypes do not fit.
        """


@dataclass(frozen=True, kw_only=True)
class BetaMixing(Mixing):
    """Weights from a Beta distribution, for both kinds of mixing."""

    alpha: float
    """Weights are drawn from Beta(alpha, alpha): mostly near 0 or 1 if alpha is below 1, uniform at 1, and near 1/2
    above."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha must be positive, not {self.alpha}; remove data.mix to turn mixing off")

    def weights(self, positions: Integers, seed: int, phase: int) -> Floats:
        """lambda of each position: int64 of any shape to float64 of the same shape, in [0, 1].

        The inverse of the cumulative distribution function, by linear interpolation between CELLS knots. The error is
        below 2**-15, a hundredth of a pixel value. It only multiplies and adds, element by element, so the result does
        not depend on the block size.

        Raises ValueError for a negative position.
        """
        hashes = keys(seed, "mix", phase, positions=positions)
        chances = (hashes >> 11).astype(np.float64) * 2.0**-54  # [0, 1/2): the distribution is symmetric
        cells = np.searchsorted(self._cdf, chances, side="right") - 1
        low = self._cdf[cells]
        inside = (chances - low) / (self._cdf[cells + 1] - low)
        below = (cells + inside) * (0.5 / CELLS)
        return np.where(hashes & 1, 1 - below, below)

    @cached_property
    def _cdf(self) -> Floats:
        """The cumulative distribution function of Beta(alpha, alpha) at k / (2 CELLS), for k from 0 to CELLS: float64
        [CELLS + 1].

        Computed by the series of positive terms in the NIST Handbook of Mathematical Functions, 8.17.8, with a = b, and
        scaled to 1/2 at 1/2, so that the Beta function is not needed.
        """
        x = np.linspace(0, 0.5, CELLS + 1)
        term, series, n = np.ones_like(x), np.ones_like(x), 0
        while term[-1] > 1e-17 * series[-1]:
            term *= x * ((2 * self.alpha + n) / (self.alpha + 1 + n))
            series += term
            n += 1
        values: Floats = np.maximum.accumulate((4 * x * (1 - x)) ** self.alpha * series)
        values /= values[-1]
        values *= 0.5  # exactly 1/2 at the end, so that every value is in a cell
        return values

    @staticmethod
    def _check(inputs: Tensor, partners: Tensor, positions: Integers) -> None:
        if inputs.shape != partners.shape or inputs.dtype != partners.dtype:
            raise ValueError(f"inputs {inputs.dtype} {list(inputs.shape)} cannot be mixed with "
                             f"{partners.dtype} {list(partners.shape)}; transforms must give all samples one size")
        if inputs.ndim != 4 or np.shape(positions) != (len(inputs),):
            raise ValueError(f"mixing needs inputs [b, C, H, W] and b positions, not {list(inputs.shape)} and "
                             f"{list(np.shape(positions))}")
        if inputs.dtype not in WIDER and not inputs.is_floating_point():
            raise ValueError(f"mixing needs uint8, uint16 or floating-point inputs, not {inputs.dtype}")


@dataclass(frozen=True, kw_only=True)
class Mixup(BetaMixing):
    """lambda times the sample and 1 - lambda times its partner: Zhang et al., "mixup: Beyond empirical risk
    minimization", 2018.

    lambda is rounded to a multiple of 1/256, and the rounded value is used and returned. Pixels are mixed with integer
    arithmetic and rounded to nearest, halves up: the error is at most 1/2. Floats of fewer than 32 bits are mixed as
    float32.
    """

    alpha: float = 0.2

    def mix(self, inputs: Tensor, partners: Tensor, positions: Integers, seed: int, phase: int
            ) -> tuple[Tensor, Tensor]:
        self._check(inputs, partners, positions)
        parts = np.rint(self.weights(positions, seed, phase) * PARTS).astype(np.int64)
        mixed = torch.empty_like(inputs)
        blend = _blend_integers if inputs.dtype in WIDER else _blend_floats
        for row, keep in enumerate(parts.tolist()):  # one by one, so that intermediate results stay in the cache
            mixed[row] = blend(inputs[row], partners[row], keep)
        return mixed, torch.from_numpy((parts / PARTS).astype(np.float32)).to(inputs.device)


def _blend_integers(own: Tensor, other: Tensor, keep: int) -> Tensor:
    """The sum of bytes, at most 255 * 256 + 128, overflows into the sign bit of int16, but after the shift its lower
    byte is correct. int16 takes half the memory of int32 and is twice as fast."""
    total = own.to(WIDER[own.dtype]).mul_(keep)
    total += other.to(WIDER[own.dtype]).mul_(PARTS - keep)
    total += PARTS // 2
    return total.bitwise_right_shift_(8).to(own.dtype)


def _blend_floats(own: Tensor, other: Tensor, keep: int) -> Tensor:
    wide = torch.promote_types(own.dtype, torch.float32)
    return (own.to(wide) * (keep / PARTS)).add_(other.to(wide) * (1 - keep / PARTS))


@dataclass(frozen=True, kw_only=True)
class CutMix(BetaMixing):
    """A box of the partner's pixels in the sample: Yun et al., "CutMix: Regularization strategy to train strong
    classifiers with localizable features", 2019.

    The box has the aspect ratio of the image and 1 - lambda of its area, with sides rounded to pixels. Its position is
    uniform inside the image, while the paper's box may extend over the edge. The returned lambda is the exact fraction
    of the area that is left.
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


@dataclass(frozen=True, kw_only=True)
class RandomMix(Mixing):
    """One of several mixings for each sample, drawn with the probabilities `p` (by default equal ones); if their sum is
    below 1, the rest of the samples is not mixed.

    Raises ValueError if `p` are not probabilities, one for each mixing, or if one of these is a RandomMix itself.
    """

    of: Sequence[Mixing]
    p: Sequence[float] | None = None

    def __post_init__(self) -> None:
        chances = self.chances
        if not self.of or len(chances) != len(self.of) or min(chances) < 0 or sum(chances) > 1 + 1e-9:
            raise ValueError(f"p must be a probability for each of the {len(self.of)} mixings, with a sum of at most "
                             f"1, not {list(chances)}")
        if any(isinstance(one, RandomMix) for one in self.of):  # it would draw what has been drawn for this one
            raise ValueError("a RandomMix cannot choose another one: list all mixings in one, with their probabilities")
        if wrong := [type(one).__name__ for one in self.of if not isinstance(one, Mixing)]:
            raise ValueError(f"{wrong[0]} is not a mixing, as drumbeat.data.Mixup and CutMix are")

    @property
    def chances(self) -> Sequence[float]:
        """The probability of each mixing."""
        return [1 / max(1, len(self.of))] * len(self.of) if self.p is None else self.p

    def mix(self, inputs: Tensor, partners: Tensor, positions: Integers, seed: int, phase: int
            ) -> tuple[Tensor, Tensor]:
        drawn = (keys(seed, "mix", phase, "choice", positions=positions) >> 11).astype(np.float64) * 2.0**-53
        ends = np.cumsum(self.chances)
        chosen = np.searchsorted(np.where(ends > 1 - 1e-9, 1, ends), drawn, side="right")
        mixed, kept = inputs.clone(), torch.ones(len(inputs), device=inputs.device)
        for number, one in enumerate(self.of):
            rows = np.flatnonzero(chosen == number)
            if len(rows):
                which = torch.from_numpy(rows)
                mixed[which], kept[which] = one.mix(inputs[which], partners[which], np.asarray(positions)[rows], seed,
                                                    phase)
        return mixed, kept
