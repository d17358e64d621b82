"""The benchmark of epochs at toy size: every contestant trains, and every ratio is a number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.epochs import BENCHMARKS, compared

SAMPLES = {"fashion": 180, "cifar": 100, "text": 150}


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_contestant_trains(name: str, tmp_path: Path) -> None:
    ours, peers = BENCHMARKS[name].make(tmp_path, SAMPLES[name])
    rows, limit = compared("toy", ours, peers, rounds=1, wanted=2.0)
    assert [row.wanted for row in rows] == [2.0, *[None] * (3 * len(peers) - 1)]
    assert all(row.ours > 0 and row.peer > 0 for row in rows)
    assert "ratio of the epoch is at most" in limit
    assert not torch.are_deterministic_algorithms_enabled()
    for peer in peers.values():
        inputs, _ = next(iter(peer.batches()))
        (own, *_), _ = next(ours.batches()) if isinstance(inputs, tuple) else (next(ours.batches())[:1], None)
        assert own.dtype == (inputs[0] if isinstance(inputs, tuple) else inputs).dtype
