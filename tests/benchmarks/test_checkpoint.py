"""The benchmark of saves at toy size: each contestant writes what it should, and each comparison is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch import nn

from benchmarks import checkpoint
from benchmarks.checkpoint import COPY, DCP, contestants, measured
from drumbeat.configs.run.manifest import saved_steps


@contextmanager
def nothing_busy() -> Iterator[None]:
    yield


@pytest.mark.filterwarnings("ignore")  # torch's, about its own asynchronous save
def test_each_contestant_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "busy_cores", nothing_busy)
    with contestants(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2))) as made:
        rows = measured(made, rounds=1)
        assert saved_steps(made.checkpoints.run) == [7]
        assert (made.home / "plain.pt").stat().st_size > 1e6 * made.megabytes
        assert len([*made.home.glob("dcp-*/.metadata")]) == 3
    assert [(row.name.count("busy"), row.peer_name) for row in rows] == [
        *[(0, peer) for peer in ("torch.save", DCP, COPY)], *[(1, peer) for peer in ("torch.save", DCP, COPY)],
        *[(1, peer) for peer in ("torch.save", DCP)] * 2]
    assert all(row.ratio == pytest.approx(row.peer / row.ours) for row in rows)
