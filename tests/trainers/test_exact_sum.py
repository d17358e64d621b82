"""The exact sum: the same bits however the parts are divided among ranks and in whatever order they are added, as close
to the true sum as a sum of floats, and computed again where a gradient outgrows its quantum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.errors import PreflightError
from drumbeat.trainers.exact_sum import HEADROOM, LEAST, ExactSum
from drumbeat.trainers.virtual_ranks import Division
from drumbeat.trainers.world import World

CPU = torch.device("cpu")
Gradients = Sequence[Sequence[Tensor | None]]
"""By part and parameter."""


@dataclass(frozen=True, kw_only=True)
class Ring(World):
    """Rank 0 of several in one process, whose reduction adds what the others have, in their order."""

    others: list[Tensor] = field(default_factory=list)

    def all_reduce(self, values: Tensor) -> Tensor:
        for other in self.others:
            values += other
        return values


class Ranks:
    """The exact sums of several ranks. `own` are the parts of each of them, in the order in which it adds them."""

    def __init__(self, like: Sequence[Tensor], own: Sequence[Sequence[int]]) -> None:
        self.parameters = [nn.Parameter(one) for one in like]
        self.own = own
        self.ring = Ring(rank=0, local_rank=0, size=len(own), device=CPU)
        names = {one: str(number) for number, one in enumerate(self.parameters)}
        count = sum(map(len, own))
        self.sums = [ExactSum(names, Division(count=count, own=range(count), virtual=True), self.ring) for _ in own]

    def step(self, gradients: Gradients, losses: Sequence[float] | None = None) -> tuple[list[Tensor | None], int]:
        """The sums of the gradients, and how often they were added."""
        for times in range(1, 4):
            for exact, parts in zip(self.sums, self.own, strict=True):
                for part in parts:
                    for parameter, gradient in zip(self.parameters, gradients[part], strict=True):
                        parameter.grad = None if gradient is None else gradient.clone()
                    exact.add(part, torch.tensor(losses[part] if losses else float(part)))
            self.ring.others[:] = [one.flat for one in self.sums[1:]]
            done = self.sums[0].reduce()
            for other in self.sums[1:]:  # which decide the same, because they have the same sums
                other.exponents, other.is_new = self.sums[0].exponents, True
            if done:
                return [one.grad for one in self.parameters], times
        raise AssertionError("a gradient does not fit its quantum after all")


def drawn(seed: int, count: int, scale: float = 1.0) -> Gradients:
    """Gradients with values of many magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    return [[scale * torch.randn(shape, generator=generator) * torch.exp2(
        torch.randint(-12, 3, shape, generator=generator).float()) for shape in ((40, 30), (7,), ())]
        for _ in range(count)]


def dealt(count: int, ranks: int, random: Random) -> list[list[int]]:
    """Parts for each rank: any of them, in any order."""
    parts = random.sample(range(count), count)
    ends = sorted(random.sample(range(1, count), ranks - 1))
    return [parts[begin:end] for begin, end in zip([0, *ends], [*ends, count], strict=True)]


def like(gradients: Gradients) -> list[Tensor]:
    return [torch.zeros_like(next(part[number] for part in gradients if part[number] is not None))  # type: ignore[arg-type]
            for number in range(len(gradients[0]))]


def bits(values: Sequence[Tensor | None]) -> list[bytes | None]:
    return [None if one is None else one.contiguous().view(torch.uint8 if one.dim() else one.dtype).numpy().tobytes()
            for one in values]


@pytest.mark.parametrize("seed", range(12))
def test_any_grouping_and_any_order_give_the_same_bits(seed: int) -> None:
    """Over several steps, of which one is a million times as large; some parts have no gradient for some tensors."""
    random = Random(seed)
    count = random.randrange(2, 13)
    steps = [drawn(100 * seed + step, count, scale=10.0**random.randrange(-30, 3)) for step in range(3)]
    steps.append(drawn(seed, count, scale=1e9))
    absent = [[list(part) for part in step] for step in steps]
    for step in absent:
        for part in random.sample(range(count), count - 1):
            step[part][random.randrange(3)] = None
    losses = [random.gauss(2, 1) for _ in range(count)]
    found = []
    for ranks in (1, 2, count):
        several = Ranks(like(steps[0]), dealt(count, ranks, random))
        found.append([(bits(sums), times, several.sums[0].loss().item())
                      for sums, times in (several.step(step, losses) for step in absent)])
    assert found[0] == found[1] == found[2]
    assert found[0][0][1] == 2, "the first step finds its quanta"
    assert found[0][-1][1] == 2


def test_it_is_as_close_to_the_true_sum_as_a_sum_of_floats() -> None:
    gradients = [[torch.randn(20_000, generator=torch.Generator().manual_seed(part))] for part in range(12)]
    (found,), _ = Ranks(like(gradients), [range(12)]).step(gradients)
    values = torch.stack([one for (one,) in gradients if one is not None])
    true = torch.tensor([math.fsum(column) for column in values.T.tolist()], dtype=torch.float64)
    floats = torch.zeros(20_000)
    for one in values:
        floats += one
    errors = [((one.double() - true) / true).abs() for one in (found, floats)]  # type: ignore[union-attr]
    assert errors[0].median() <= errors[1].median()
    assert errors[0].quantile(0.99) <= errors[1].quantile(0.99)


def test_halves_of_a_quantum_are_rounded_for_each_part_by_itself() -> None:
    """Ties go to the even multiple, and not to that which the sum so far makes even."""
    one = Ranks([torch.zeros(2)], [range(3)])
    one.step([[torch.ones(2)]] * 3)
    quantum = 2.0**int(one.sums[0].exponents[0])
    ties = [[torch.tensor([half * quantum, 1.0])] for half in (0.5, 1.5, 2.5)]
    (found,), times = one.step(ties)
    assert found is not None and times == 1
    assert found.tolist() == [(0 + 2 + 2) * quantum, 3.0]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so_and_changes_no_quantum(odd: float) -> None:
    one = Ranks([torch.zeros(2), torch.zeros(3)], [[0], [1]])
    one.step([[torch.ones(2), torch.ones(3)]] * 2)
    before = one.sums[0].state()
    corrupted = torch.tensor([odd, 1.0])
    sums, times = one.step([[torch.ones(2), torch.ones(3) / 1e6], [corrupted, torch.ones(3) / 1e6]], [1.0, math.nan])
    assert times == 1
    assert not sums[0][0].isfinite() and sums[0][1] == 2  # type: ignore[index]
    assert one.sums[0].state() == before
    assert one.sums[0].loss().isnan()


def test_a_quantum_rises_at_once_and_falls_slowly() -> None:
    one = Ranks([torch.zeros(2)], [range(4)])
    exponents = []
    for size in (1.0, 500.0, 1.0, 1.0):
        _, times = one.step([[torch.full((2,), size)]] * 4)
        exponents.append((one.sums[0].state()["0"], times))
    first = 1 + HEADROOM + 2 - 51
    assert exponents == [(first, 2), (first + 8, 1), (first + 7, 1), (first + 6, 1)]
    assert one.step([[torch.full((2,), 1e6)]] * 4)[1] == 2


def test_gradients_of_zeros_and_no_gradients() -> None:
    one = Ranks([torch.zeros(2), torch.zeros(3), torch.zeros(1)], [[0], [1]])
    sums, times = one.step([[torch.zeros(2), None, None], [-torch.zeros(2), None, torch.ones(1)]])
    assert times == 2
    assert sums[0] is not None and sums[0].tolist() == [0, 0] and not sums[0].signbit().any()
    assert sums[1] is None
    assert sums[2] is not None and sums[2].tolist() == [1]
    assert one.sums[0].state() == {"0": LEAST, "1": LEAST, "2": 1 + HEADROOM + 1 - 51}


def test_all_types_and_layouts_of_gradients() -> None:
    """bfloat16, float64, complex, images in channels-last order, a transposed gradient, and none of any size."""
    kernel = torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last)
    parameters = [torch.zeros(3, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.float64),
                  torch.zeros(3, dtype=torch.complex64), kernel, torch.zeros(2, 5), torch.zeros(0)]
    generator = torch.Generator().manual_seed(0)
    parts = [[torch.randn(one.shape, generator=generator, dtype=one.dtype if one.is_complex() else torch.float64
                          ).to(one.dtype) for one in parameters] for _ in range(3)]
    parts = [[one, two, three, four.to(memory_format=torch.channels_last), five.T.contiguous().T, six]
             for one, two, three, four, five, six in parts]
    sums, _ = Ranks(parameters, [[0, 2], [1]]).step(parts)
    for number, (found, parameter) in enumerate(zip(sums[:5], parameters, strict=False)):
        assert found is not None and found.stride() == parameter.stride() and found.dtype == parameter.dtype
        true = torch.stack([part[number].to(torch.complex128) for part in parts]).sum(0)
        torch.testing.assert_close(found.to(torch.complex128), true, rtol=4e-3 if number == 0 else 1e-6, atol=1e-9)


def test_a_sparse_gradient_is_refused() -> None:
    one = Ranks([torch.zeros(3, 2)], [[0]])
    with pytest.raises(PreflightError, match="0 has a sparse gradient, which cannot be summed exactly"):
        one.step([[torch.eye(3, 2).to_sparse()]])


def test_the_quanta_are_those_of_the_checkpoint() -> None:
    one, other = (Ranks([torch.zeros(2)], [range(2)]) for _ in range(2))
    for size in (64.0, 1.0):
        one.step([[torch.full((2,), size)]] * 2)
    other.sums[0].load(one.sums[0].state())
    odd = [[torch.tensor([1.0, 2.0**-46])]] * 2
    assert bits(other.step(odd)[0]) == bits(one.step(odd)[0])


@pytest.mark.parametrize(("losses", "total"), [((1.0, -3.0), -2.0), ((math.inf, 1.0), math.inf),
                                               ((-math.inf, 1.0), -math.inf), ((math.inf, -math.inf), math.nan)])
def test_the_parts_of_the_loss_add_up_to_it(losses: tuple[float, float], total: float) -> None:
    """As they do on one rank, also if it is NaN or Inf."""
    ranks = Ranks([torch.zeros(2)], [[0, 1]])
    ranks.step([[torch.ones(2)], [torch.ones(2)]], losses)
    exact = ranks.sums[0]
    parts = []
    for rank in range(3):
        exact.world = World(rank=rank, local_rank=rank, size=3, device=CPU)
        parts.append(exact.loss())
    assert repr(sum(map(float, parts))) == repr(total)
