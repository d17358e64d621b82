"""How ranks join, and how long they wait for each other. The CUDA half is shown as far as it can be without a GPU:
which calls it makes, and that torch's functions take them."""

from __future__ import annotations

import inspect
import math
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from drumbeat.configs.patience import SHORTEST, gloo_seconds, nccl_seconds
from drumbeat.trainers.world import World, join, limit_waits
from tests.ranks import on_ranks


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `init_process_group` was called with, for rank 5 of 8 on the second GPU of its node."""
    called: dict[str, Any] = {}
    signature = inspect.signature(dist.init_process_group)
    monkeypatch.setattr(dist, "init_process_group",
                        lambda *words, **named: called.update(signature.bind(*words, **named).arguments))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr("drumbeat.trainers.world.bind_near", lambda device, threads: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    return called


def test_cuda_ranks_name_their_device_so_that_nccl_connects_them_at_once(joined: dict[str, Any]) -> None:
    with join("cuda", 60.0) as world:
        assert world.device == torch.device("cuda", 1)
    assert joined == {"backend": "cpu:gloo,cuda:nccl", "device_id": torch.device("cuda", 1),
                      "timeout": timedelta(seconds=SHORTEST)}


def test_ranks_on_the_cpu_name_none(joined: dict[str, Any]) -> None:
    with join("cpu", 2 * SHORTEST) as world:
        assert (world.rank, world.size) == (5, 8)
    assert joined == {"backend": "gloo", "device_id": None, "timeout": timedelta(seconds=2 * SHORTEST)}


def test_nccl_gives_up_before_the_watchdog_and_gloo_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = {}

    def backend(device: torch.device) -> SimpleNamespace:
        name = {"cuda": "nccl", "cpu": "gloo"}[device.type]
        return SimpleNamespace(name=lambda: name, _set_default_timeout=lambda time: waits.update({name: time}))

    group = SimpleNamespace(_device_types=[torch.device("cuda"), torch.device("cpu")], _get_backend=backend)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "group", SimpleNamespace(WORLD=group))
    limit_waits(600.0)
    assert waits == {"nccl": timedelta(seconds=nccl_seconds(600.0)), "gloo": timedelta(seconds=gloo_seconds(600.0))}
    assert waits["nccl"] < timedelta(seconds=600) < waits["gloo"]


def exchange(world: World) -> None:
    """Each rank sends its number, as many times as that, and rank 0's value arrives on all."""
    if world.is_main:
        for rank in (2, 1):
            assert world.receive(rank).tolist() == [rank] * rank
    else:
        world.send(torch.full((world.rank,), world.rank, dtype=torch.uint8))
    shared = world.share({"loss": 0.1, "of": ["\N{SNOWMAN}", None, math.inf]} if world.is_main else "nothing")
    assert shared == {"loss": 0.1, "of": ["\N{SNOWMAN}", None, math.inf]}


@pytest.mark.slow
def test_ranks_send_bytes_to_rank_0_and_share_its_values() -> None:
    on_ranks(3, exchange)


def time_out(world: World) -> None:
    """Rank 0 does not receive what rank 1 sends."""
    group, store = dist.group.WORLD, dist.distributed_c10d._get_default_store()
    assert group is not None
    group._get_backend(world.device)._set_default_timeout(timedelta(milliseconds=50))
    if world.is_main:
        store.wait(["timed out"])
    else:
        with pytest.raises(RuntimeError, match="Timed out waiting"):
            world.send(torch.zeros(10**7, dtype=torch.uint8))
        store.set("timed out", "")


@pytest.mark.slow
def test_sending_waits_as_long_as_is_set_after_joining() -> None:
    on_ranks(2, time_out)
