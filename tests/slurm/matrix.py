"""The clusters that the launcher is tried on: each way to find a job's processes, with accounting and without.

`make test-slurm` tries all of them. The ones for every day cover what tests/slurm/test_matrix.py says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

ACCOUNTS = "-accounts"
CELLS = tuple(proctrack + accounts for accounts in ("", ACCOUNTS) for proctrack in ("cgroup", "linuxproc", "pgid"))
SOME = ("cgroup", "linuxproc-accounts", "pgid")
"""For tests that take a minute."""


def on(*everyday: str, among: Sequence[str] = CELLS, **options: Any) -> pytest.MarkDecorator:
    """Has a test tried on these kinds of cluster, on the named ones every day, each of them with the same options."""
    assert everyday and set(everyday) <= set(among)
    params = [pytest.param({"proctrack": cell.removesuffix(ACCOUNTS), "accounting": cell.endswith(ACCOUNTS), **options},
                           id=cell, marks=() if cell in everyday else pytest.mark.matrix) for cell in among]
    return pytest.mark.parametrize("cluster", params, indirect=True, scope="module")
