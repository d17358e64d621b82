"""The kinds of cluster that tests run on: each way to find a job's processes, with accounting and without.

`make test-slurm` tries all of them. The ones for every day cover what tests/slurm/test_kinds.py says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

ACCOUNTS = "-accounts"
KINDS = tuple(proctrack + accounts for accounts in ("", ACCOUNTS) for proctrack in ("cgroup", "linuxproc", "pgid"))
SIXTEEN = "cgroup-16-nodes"
"""Sixteen nodes of one core."""
SOME = ("cgroup", "linuxproc-accounts", "pgid")
"""For tests that take a minute."""


def options(kind: str) -> dict[str, Any]:
    """The arguments of `Cluster` for a cluster of this kind."""
    if kind == SIXTEEN:
        return {"proctrack": "cgroup", "accounting": False, "nodes": 16, "cpus": 1}
    return {"proctrack": kind.removesuffix(ACCOUNTS), "accounting": kind.endswith(ACCOUNTS)}


def on(*everyday: str, among: Sequence[str] = KINDS) -> pytest.MarkDecorator:
    """Runs a test on a cluster of each of these kinds, every day on the named ones. The tests of one kind are one group
    of pytest-xdist's, so that they share a cluster."""
    assert everyday and set(everyday) <= set(among)
    params = []
    for kind in among:
        marks = [pytest.mark.xdist_group(kind), *([] if kind in everyday else [pytest.mark.matrix])]
        params.append(pytest.param(kind, id=kind, marks=marks))
    return pytest.mark.parametrize("cluster", params, indirect=True)
