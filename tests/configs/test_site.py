"""The keys of a cluster's profile."""

from __future__ import annotations

import dataclasses

from drumbeat.configs.site import Site


def test_bounds_are_where_the_loader_looks_for_them() -> None:
    """`configs/faults.py` reads them from the fields' metadata."""
    found = {one.name: dict(one.metadata) for one in dataclasses.fields(Site)}
    assert found["mem_gb_per_node"] == {"above": 0}
    assert found["time_minutes"] == {"at_least": 1, "minutes": True}
