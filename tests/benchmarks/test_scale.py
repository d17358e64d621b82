"""The benchmark of world sizes, with few ranks."""

from __future__ import annotations

from benchmarks.scale import measure


def test_each_work_is_measured_at_each_world_size() -> None:
    rows, lines = measure([8, 16])
    assert len(rows) == len(lines) - 1
    assert all(row.ours > 0 for row in rows)
    assert next(row for row in rows if row.name == "files for each node").ours == 19.5
