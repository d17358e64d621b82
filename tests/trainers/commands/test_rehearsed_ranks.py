"""The rehearsal on two ranks: what fails only there, on either of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.commands import rehearsed_ranks
from drumbeat.trainers.commands.preflight import preflight
from drumbeat.trainers.commands.rehearsed_ranks import on_two_ranks
from drumbeat.trainers.world import World
from tests.tiny import Net, write_config

HERE = "tests.trainers.commands.test_rehearsed_ranks"


def add_up(world: World) -> None:
    assert world.all_reduce(torch.tensor(1 + world.rank)).item() == 3


def fail_on(rank: int, world: World) -> None:
    if world.rank == rank:
        raise ValueError("not here")
    world.all_reduce(torch.ones(1))


def end(world: World) -> None:
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.all_reduce(torch.ones(1))


def wait(world: World) -> None:
    if world.rank == 0:
        world.all_reduce(torch.ones(1))
    else:
        signal.pause()


def test_two_ranks_that_agree() -> None:
    assert on_two_ranks(add_up) is None


@pytest.mark.parametrize("rank", [0, 1])
def test_the_error_is_that_of_the_rank_that_fails_first(rank: int) -> None:
    found = on_two_ranks(lambda world: fail_on(rank, world))
    assert found is not None
    assert found[0] == "ValueError: not here"
    assert found[1].endswith("in fail_on")


def test_a_second_rank_that_is_killed() -> None:
    assert on_two_ranks(end) == ("the second rank was killed", "")


def test_a_second_rank_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsed_ranks, "SECONDS", 1.0)
    found = on_two_ranks(wait)
    assert found is not None
    assert rehearsed_ranks.NO_ANSWER.search(found[0])


class PerRank(Net):
    """Reads its rank, as code for several ranks may, and makes a mistake on the second."""

    def forward(self, pictures: Tensor) -> Tensor:
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            raise IndexError("no such expert")
        return super().forward(pictures)


def test_a_model_that_works_on_one_rank_only(tmp_path: Path) -> None:
    config = load(write_config(tmp_path), ["phases.head.freeze=[]", f"model._target_={HERE}.PerRank"]).config
    preflight(config)
    with pytest.raises(PreflightError) as caught:
        preflight(config, world_size=2)
    (fault,) = caught.value.faults
    assert fault.what.startswith("what works on one rank fails on two: ")
    assert "no such expert" in fault.what


def test_the_tiny_experiment_on_two_ranks(tmp_path: Path) -> None:
    assert preflight(load(write_config(tmp_path)).config, world_size=2)["notes"] == []
