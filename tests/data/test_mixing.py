"""Mixup and CutMix: partners, weights and pixels, each a function of the position."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from drumbeat.data.mixing import PARTS, CutMix, Mixing, Mixup, RandomMix
from drumbeat.data.order import Stream, shard

SEED = 17
BOTH = [Mixup(alpha=0.4), CutMix()]


def chi_square(counts: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    """How far counts are from what was expected, in standard deviations: a fair draw gives about -3 to 4."""
    freedom = counts.size - 1
    return float(((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def pictures(positions: NDArray[np.int64], dtype: torch.dtype = torch.uint8, size: tuple[int, int] = (9, 14)) -> Tensor:
    """A picture [3, *size] for each position, the same one each time."""
    rows = [torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(p)) for p in positions.tolist()]
    return torch.stack(rows).to(dtype)


def mixed(mixing: Mixing, positions: NDArray[np.int64], dtype: torch.dtype = torch.uint8) -> tuple[Tensor, Tensor]:
    partners = mixing.partners(positions)
    return mixing.mix(pictures(positions, dtype), pictures(partners, dtype), positions, SEED, 1)


# The promise: a run is resumed with the weights it was started with. If this fails, the format has changed.


def test_golden_weights() -> None:
    positions = np.arange(4)
    golden = {Mixup(): [0.8246768731, 0.3438478019, 0.2220907695, 0.9288550142],
              CutMix(): [0.6189833588, 0.4488111816, 0.4024836207, 0.6867750897]}
    for mixing, weights in golden.items():
        assert np.allclose(mixing.weights(positions, SEED, 0), weights, rtol=0, atol=1e-9)
    masks, _ = boxes((8, 8), 3)
    assert [(m.nonzero().min(0).values.tolist(), m.nonzero().max(0).values.tolist()) for m in masks] == [
        ([2, 0], [6, 4]), ([1, 0], [6, 5]), ([0, 2], [5, 7])]


# Partners.


def test_partners_are_pairs() -> None:
    positions = np.arange(1000).reshape(10, 100) + 2**40
    partners = Mixup().partners(positions)
    assert partners.dtype == np.int64
    assert np.array_equal(CutMix().partners(partners), positions)
    assert (np.abs(partners - positions) == 1).all()


def test_a_neighbour_in_a_shuffled_stream_is_a_fair_draw() -> None:
    """All ordered pairs of samples are equally frequent over 2,500 epochs."""
    n = 6
    first, second = Stream(n, SEED, 0).indices(np.arange(n * 2500)).reshape(-1, 2).T
    counts = np.bincount(first * n + second, minlength=n * n).reshape(n, n)
    others = counts[~np.eye(n, dtype=bool)]
    assert counts.trace() == 0
    assert chi_square(others, np.full(others.size, others.mean())) < 4


# Weights.


def beta(alpha: float) -> Callable[[float], float]:
    """The distribution function of Beta(alpha, alpha), computed in another way than in data/mixing.py."""
    if alpha == 0.5:
        return lambda x: 2 / math.pi * math.asin(math.sqrt(x))  # the arcsine law
    if alpha == 1:
        return lambda x: x
    if alpha == 2:
        return lambda x: x * x * (3 - 2 * x)
    if alpha == 8:  # the 8th of 15 sorted uniform draws
        return lambda x: sum(math.comb(15, k) * x**k * (1 - x) ** (15 - k) for k in range(8, 16))

    def below(x: float) -> float:
        """The integral up to x <= 1/2, by Simpson's rule in t = x**alpha, where nothing is infinite."""
        t = np.linspace(0, x**alpha, 2001)
        values = (1 - t ** (1 / alpha)) ** (alpha - 1)
        return float((values[0] + values[-1] + 4 * values[1:-1:2].sum() + 2 * values[2:-1:2].sum()) * t[1] / 3)

    whole = 2 * below(0.5)
    return lambda x: below(x) / whole if x <= 0.5 else 1 - below(1 - x) / whole


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1, 2, 8])
def test_weights_follow_the_beta_distribution(alpha: float) -> None:
    weights = Mixup(alpha=alpha).weights(np.arange(200_000), SEED, 0)
    assert weights.dtype == np.float64
    assert 0 <= weights.min() <= weights.max() <= 1
    edges = np.array([0, 1e-3, 0.01, *np.linspace(0.05, 0.95, 19), 0.99, 0.999, 1])
    expected = np.diff([beta(alpha)(edge) for edge in edges]) * len(weights)
    counts = np.histogram(weights, edges)[0]
    kept = expected > 10
    assert chi_square(counts[kept], expected[kept]) < 4
    assert counts[~kept].sum() <= 30 + 10 * (~kept).sum()


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1, 2, 8])
def test_the_table_is_the_distribution_function(alpha: float) -> None:
    table = Mixup(alpha=alpha)._cdf
    for cell in (1, 2, 100, 5000, len(table) - 2, len(table) - 1):
        assert math.isclose(table[cell], beta(alpha)(cell / (2 * (len(table) - 1))), rel_tol=1e-8)


@pytest.mark.parametrize("alpha", [1e-3, 0.02, 50, 2000])
def test_extreme_weights_stay_weights(alpha: float) -> None:
    weights = Mixup(alpha=alpha).weights(np.arange(20_000), SEED, 0)
    spread = math.sqrt(1 / (4 * (2 * alpha + 1)))  # of Beta(alpha, alpha)
    assert 0 <= weights.min() <= weights.max() <= 1
    assert abs(weights.mean() - 0.5) < 5 * spread / math.sqrt(20_000)
    assert abs(weights.std() - spread) < 0.05 * spread


@pytest.mark.parametrize("mixing", BOTH, ids=repr)
def test_weights_depend_on_position_seed_and_phase_alone(mixing: Mixing) -> None:
    positions = np.arange(600) + 10**12
    whole = mixing.weights(positions, SEED, 1)
    for size in (1, 7, 256):
        parts = [mixing.weights(positions[begin:begin + size], SEED, 1) for begin in range(0, 600, size)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(mixing.weights(positions[::-3], SEED, 1), whole[::-3])
    assert np.array_equal(mixing.weights(positions.reshape(20, 30), SEED, 1), whole.reshape(20, 30))
    assert np.array_equal(pickle.loads(pickle.dumps(mixing)).weights(positions, SEED, 1), whole)
    assert not np.array_equal(mixing.weights(positions, SEED, 2), whole)
    assert not np.array_equal(mixing.weights(positions, SEED + 1, 1), whole)
    with pytest.raises(ValueError, match="are not all in 0 to"):
        mixing.weights(np.array([-1]), SEED, 1)


# Pixels.


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mixing", BOTH, ids=repr)
def test_bits_are_the_same_at_any_world_size(mixing: Mixing, dtype: torch.dtype, world_size: int) -> None:
    positions = np.arange(24) + 36
    whole, weights = mixed(mixing, positions, dtype)
    assert whole.dtype == dtype
    assert weights.dtype == torch.float32
    assert whole.shape == (24, 3, 9, 14)
    parts = [shard(24, rank, world_size) for rank in range(world_size)]
    pieces = [mixed(mixing, positions[part.start:part.stop], dtype) for part in parts]
    assert torch.equal(torch.cat([piece[0] for piece in pieces]), whole)
    assert torch.equal(torch.cat([piece[1] for piece in pieces]), weights)
    assert not torch.equal(whole, pictures(positions, dtype))


def test_bytes_are_rounded_to_the_nearest() -> None:
    """Compared with fractions: all pairs of bytes at many weights, off by half a level at most, halves up."""
    own = torch.arange(256, dtype=torch.uint8).repeat_interleave(256).view(1, 1, 256, 256).repeat(12, 1, 1, 1)
    other = torch.arange(256, dtype=torch.uint8).repeat(256).view(1, 1, 256, 256).repeat(12, 1, 1, 1)
    result, weights = Mixup(alpha=0.7).mix(own, other, np.arange(12), SEED, 0)
    parts = (weights * PARTS).long()
    assert torch.equal(parts / PARTS, weights), "the weight in the targets is the weight used"
    assert np.abs(weights.numpy() - Mixup(alpha=0.7).weights(np.arange(12), SEED, 0)).max() <= 0.5 / PARTS
    keep = parts.view(-1, 1, 1, 1)
    assert torch.equal(result.long(), (2 * (own * keep + other.long() * (PARTS - keep)) + PARTS) // (2 * PARTS))


def test_floats_are_mixed_by_the_weight() -> None:
    positions = np.arange(16)
    result, weights = mixed(Mixup(alpha=1), positions, torch.float64)
    own, other = pictures(positions, torch.float64), pictures(positions ^ 1, torch.float64)
    keep = weights.double().view(-1, 1, 1, 1)
    assert torch.allclose(result, keep * own + (1 - keep) * other, rtol=1e-15)


def test_inputs_are_not_changed() -> None:
    positions = np.arange(8)
    for mixing in BOTH:
        own, other = pictures(positions), pictures(positions ^ 1)
        mixing.mix(own, other, positions, SEED, 0)
        assert torch.equal(own, pictures(positions))
        assert torch.equal(other, pictures(positions ^ 1))


def boxes(size: tuple[int, int], b: int, alpha: float = 1) -> tuple[Tensor, Tensor]:
    """Where CutMix puts its partner's pixels, [b, H, W] bool, and the weights it returns."""
    zeros, ones = torch.zeros(b, 1, *size), torch.ones(b, 1, *size)
    result, weights = CutMix(alpha=alpha).mix(zeros, ones, np.arange(b), SEED, 0)
    return result[:, 0].bool(), weights


@pytest.mark.parametrize("size", [(9, 14), (32, 32), (1, 5)])
def test_a_box_is_a_box_and_its_area_is_reported(size: tuple[int, int]) -> None:
    height, width = size
    masks, weights = boxes(size, 500)
    drawn = CutMix().weights(np.arange(500), SEED, 0)
    for mask, weight, draw in zip(masks, weights.tolist(), drawn.tolist(), strict=True):
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        for line in (rows, columns):
            assert (line.int().diff().abs().sum() + line[0] + line[-1]) in (0, 2)
        assert weight == np.float32(1 - Fraction(int(mask.sum()), height * width))
        for line, side in ((rows, height), (columns, width)):
            assert abs(int(line.sum()) - math.sqrt(1 - draw) * side) <= 0.5 or not mask.any()


def test_the_position_of_a_box_is_uniform() -> None:
    """With boxes of half a side, as a huge alpha makes them: 8 * 1/sqrt(2), rounded to 6, in 3 x 3 places."""
    masks, _ = boxes((8, 8), 1800, alpha=1e4)
    places = masks.any(2).int().argmax(1) * 3 + masks.any(1).int().argmax(1)
    counts = np.bincount(places.numpy(), minlength=9)
    assert counts.sum() == 1800
    assert chi_square(counts, np.full(9, 200.0)) < 4


# What is refused.


@pytest.mark.parametrize("alpha", [0, -1, math.nan, math.inf])
def test_alpha_must_be_positive(alpha: float) -> None:
    for kind in (Mixup, CutMix):
        with pytest.raises(ValueError, match=f"alpha must be positive, not {alpha}"):
            kind(alpha=alpha)


@pytest.mark.parametrize("mixing", BOTH, ids=repr)
def test_invalid_inputs_are_rejected(mixing: Mixing) -> None:
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    for own, other, positions, message in (
        (images, images[:1], [0, 1], r"\[2, 3, 4, 4\] cannot be mixed with torch.uint8 \[1, 3, 4, 4\]"),
        (images, images.float(), [0, 1], "cannot be mixed with torch.float32"),
        (images, images, [0], r"b positions, not \[2, 3, 4, 4\] and \[1\]"),
        (images[0], images[0], [0, 1, 2], r"not \[3, 4, 4\] and \[3\]"),
        (images.int(), images.int(), [0, 1], "mixing needs uint8, uint16 or floating-point inputs, not torch.int32"),
    ):
        with pytest.raises(ValueError, match=message):
            mixing.mix(own, other, np.array(positions), SEED, 0)


# One of several.


def test_each_sample_has_one_of_several_mixings_or_none() -> None:
    positions = np.arange(1000)
    both = [Mixup(alpha=4.0), CutMix(alpha=4.0)]
    found, kept = mixed(RandomMix(of=both, p=[0.5, 0.3]), positions)
    every = [mixed(one, positions) for one in both] + [(pictures(positions), torch.ones(len(positions)))]
    which = torch.stack([(found == images).flatten(1).all(1) & (kept == weights) for images, weights in every])
    assert which.any(0).all()
    shares = [float((which[number] & ~which[[other for other in range(3) if other != number]].any(0)).float().mean())
              for number in range(3)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.04)


def test_one_of_several_is_a_function_of_the_position() -> None:
    positions = np.arange(64)
    several = RandomMix(of=BOTH)
    whole, kept = mixed(several, positions)
    for rank in range(3):
        part = np.array(shard(64, rank, 3))
        images, weights = mixed(several, part)
        assert torch.equal(images, whole[part])
        assert torch.equal(weights, kept[part])
    assert (kept < 1).float().mean() > 0.9


@pytest.mark.parametrize(("of", "p", "message"), [
    ([], None, "each of the 0 mixings"), (BOTH, [0.5], "each of the 2 mixings"), (BOTH, [0.7, 0.5], "at most 1"),
    (BOTH, [-0.1, 0.5], "must be a probability"), (["mixup"], None, "str is not a mixing"),
    ([RandomMix(of=BOTH), *BOTH], None, "cannot choose another one")])
def test_probabilities_that_do_not_fit(of: list[Mixing], p: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomMix(of=of, p=p)
