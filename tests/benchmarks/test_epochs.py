"""The benchmark of epochs at toy size: every contestant trains, and every ratio is a number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.epochs import BENCHMARKS, compared
from drumbeat.data.loader import one_thread

SAMPLES = {"fashion": 180, "cifar": 100, "text": 30}


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_contestant_trains(name: str, tmp_path: Path) -> None:
    with one_thread():
        ours, peers = BENCHMARKS[name].make(tmp_path, SAMPLES[name])
        rows, limit = compared("toy", ours, peers, rounds=1, wanted=2.0)
    assert [row.wanted for row in rows] == [2.0, *[None] * (3 * len(peers) - 1)]
    assert all(row.ours > 0 and row.peer > 0 for row in rows)
    assert limit.startswith("Limit of toy: training the model alone")
    assert not torch.are_deterministic_algorithms_enabled()
