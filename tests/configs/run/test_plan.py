"""plan.json, as node launchers and workers of this and of other versions read it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan, Topology
from tests.runs import write_plan


@pytest.fixture
def values(tmp_path: Path) -> dict[str, object]:
    """A plan as its file holds it."""
    return write_plan(RunDir(tmp_path / "run")).as_json()


def test_the_world_size_is_that_of_all_nodes() -> None:
    assert Topology(nodes=3, ranks_per_node=8, device="cuda", cpus_per_rank=2).world_size == 24


def test_a_plan_without_the_optional_fields_has_their_defaults(values: dict[str, object]) -> None:
    for name in ("deterministic", "allocation", "python", "versions"):
        del values[name]
    plan = JobPlan.parse(values)
    assert (plan.deterministic, plan.allocation, plan.python, plan.versions) == (True, None, sys.executable, None)


@pytest.mark.parametrize(("name", "value", "words"), [
    ("backend", "kubernetes", "backend"), ("topology", {"nodes": 1}, r"'topology\.ranks_per_node' is missing"),
    ("environment", {"OMP_NUM_THREADS": 8}, r"environment\.OMP_NUM_THREADS"), ("restarts", "3", "restarts"),
])
def test_a_value_that_no_plan_can_have_is_named(values: dict[str, object], name: str, value: object,
                                                words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JobPlan.parse(values | {name: value})
