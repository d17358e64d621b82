"""On which part of the batch a step is timed, and what follows from the speeds."""

from __future__ import annotations

import pytest

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.schema import Config
from drumbeat.trainers.doctor.speed import _advice, rank_batch


def config(**changes: object) -> Config:
    values = {"name": "x", "batch_size": 128, "model": {"_target_": "x"}, "launch": {"gpus": 0},
              "phases": {"one": {"epochs": 1, "optimizer": {"_target_": "x"}}}, **changes}
    return build_config([Layer(origin="test", values=values)])


@pytest.mark.parametrize(("changes", "expected"), [
    ({}, 128),
    ({"launch": {"gpus": 0, "procs": 4}}, 32),
    ({"launch": {"gpus": 8, "nodes": 2}}, 8),
    ({"launch": {"gpus": 0, "procs": 3}}, 43),
    ({"micro_batch_size": 20}, 19),
    ({"batch_size": 2, "launch": {"gpus": 8}}, 1),
    ({"phases": {"one": {"epochs": 1, "batch_size": 6, "optimizer": {"_target_": "x"}}}}, 6),
])
def test_the_part_of_a_rank(changes: dict[str, object], expected: int) -> None:
    """The batch is that of all ranks, and a rank computes at most micro_batch_size samples at a time."""
    assert rank_batch(config(**changes)) == expected


def test_the_number_of_workers() -> None:
    def advice(taken: float) -> list[tuple[str, str]]:
        return list(_advice(config(), None, delivered=100, decoding=0, taken=taken, on="GPU"))

    assert advice(50) == [("advice", "one loader worker for each GPU is enough")]
    assert advice(350) == [("advice", "use 4 loader workers for each GPU as fast as this one")]
