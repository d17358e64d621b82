"""Digests of gradients: a change of any bit, and values or tensors that have changed places, change them."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from drumbeat.trainers.gradient_digest import SAMPLED, SMALL, OwnGradients, digest_row, fold
from drumbeat.trainers.world import World
from tests.ranks import on_ranks


def digest(*gradients: Tensor) -> int:
    return int(fold(digest_row(gradients)[None]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
@pytest.mark.parametrize("size", [1, 7, SMALL, SMALL + 1, 10_003])
def test_a_change_of_any_bit_changes_it(dtype: torch.dtype, size: int) -> None:
    gradient = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)
    before, numbers = digest(gradient), random.Random(size)
    for bit in range(8 * gradient.element_size()):
        for place in {0, size - 1, numbers.randrange(size)}:
            values = gradient.clone()
            values.view(torch.uint8)[gradient.element_size() * place + bit // 8] ^= 1 << bit % 8
            assert digest(values) != before, (bit, place)


def test_values_that_have_changed_places_change_it() -> None:
    one = torch.randn(SMALL)
    swapped = one.clone()
    swapped[[3, 70]] = one[[70, 3]]
    assert digest(swapped) != digest(one)
    large = torch.randn(SMALL * 8)
    for other in (large.flip(0), large.roll(1), large.roll(SMALL * 8 // SAMPLED)):
        assert digest(other) != digest(large)


@pytest.mark.parametrize("size", [6, SMALL * 2])
def test_tensors_that_have_changed_places_change_it(size: int) -> None:
    one, other = torch.randn(size), torch.randn(size)
    assert digest(one, other) != digest(other, one)
    assert digest(one, other) == digest(one.clone(), other.clone())


@pytest.mark.parametrize("size", [16, SMALL + 2])
def test_it_depends_on_the_values_alone(size: int) -> None:
    """Not on the place in memory, which differs between buckets and tensors of their own."""
    values = torch.randn(size)
    shifted = torch.cat([torch.zeros(1), values])[1:]
    assert shifted.storage_offset() == 1
    assert digest(shifted) == digest(values)


def test_all_kinds_of_gradients_have_one() -> None:
    image = torch.randn(8, 4, 16, 16)
    sparse = torch.sparse_coo_tensor(torch.tensor([[1, 3]]), torch.randn(2, 5), (9, 5), check_invariants=True)
    kinds = [image, image.to(memory_format=torch.channels_last), torch.randn(6, 8)[:, :5], torch.randn(3, 4).T,
             torch.randn(()), torch.empty(0), torch.tensor([float("nan"), float("inf")]), sparse,
             torch.randn(5, dtype=torch.complex64), torch.randn(5, dtype=torch.float64)]
    found = {digest(one) for one in kinds} | {digest(*kinds), digest()}
    assert len(found) == len(kinds) + 1  # nothing has the digest of an empty tensor
    assert 0 not in found


def test_many_rows_have_the_digests_of_each() -> None:
    rows = [digest_row([torch.randn(3, 4), torch.randn(SMALL * 2)]) for _ in range(5)]
    assert fold(torch.stack(rows)).tolist() == [int(fold(row[None])) for row in rows]


def averages(world: World) -> None:
    """Two replicas with the same gradients, one of which has a hook."""
    torch.manual_seed(0)
    hooked, plain = (nn.Linear(5, 3, bias=False) for _ in range(2))
    plain.load_state_dict(hooked.state_dict())
    replicas = [DistributedDataParallel(model, gradient_as_bucket_view=True) for model in (hooked, plain)]
    own = OwnGradients(replicas[0])
    inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(world.rank))
    for replica in replicas:
        replica(inputs).square().sum().backward()
    assert torch.equal(hooked.weight.grad, plain.weight.grad)
    sums = own.take()
    assert sums is not None
    assert own.take() is None
    expected = torch.autograd.grad((inputs @ plain.weight.T).square().sum(), plain.weight)[0]
    whole = expected.flatten()
    words = int(whole[:14].view(torch.int64).sum()) + int(whole[14:].view(torch.int32).sum())
    assert [int(value) for value in sums] == [(words + 2**63) % 2**64 - 2**63]


def test_a_rank_has_the_digest_of_its_own_gradients_and_the_average_stays_as_it_is() -> None:
    on_ranks(3, averages)


def test_without_other_ranks_there_are_none() -> None:
    assert OwnGradients(nn.Linear(2, 2)).take() is None
