"""Fast tests first: whoever waits for the whole suite sees the cheap mistakes at once."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts by cost and nothing else: the order within a module, and so the sharing of fixtures, stays."""
    items.sort(key=lambda item: 2 if item.get_closest_marker("slurm") else 1 if item.get_closest_marker("slow") else 0)
