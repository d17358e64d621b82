"""Remembered nodes are excluded, but never so many that the job could not be scheduled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.run.bad_nodes import remember
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.site import Site
from drumbeat.launch.backends.exclusions import date, exclusions
from drumbeat.launch.backends.slurm import Slurm
from tests.launch import tiny_plan
from tests.launch.fake_slurm import programs

NOW = time.time()
Plan = Callable[..., JobPlan]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan for some nodes of a partition of `partition` nodes that are idle, with options of sbatch."""
    def make(nodes: int = 1, partition: int = 8, sinfo: str = "", sbatch: str = "", **options: Any) -> JobPlan:
        rows = "".join(f"echo 'main*|n{number}|idle'\n" for number in range(1, partition + 1))
        monkeypatch.setenv("PATH", programs(tmp_path, sinfo=sinfo or rows, sbatch=sbatch or "exit 0"))
        made = tiny_plan.plan(tmp_path, "launch.gpus=0", f"launch.nodes={nodes}", backend="slurm",
                              site=Site(sbatch=options))
        return replace(made, run_dir=str(tmp_path / "runs" / "small" / "RUN"))

    (tmp_path / "runs").mkdir()
    return make


def bad(folder: Path, *nodes: str, reason: str = "it has lost its GPU.") -> None:
    """Remembers the nodes; the last one has failed last."""
    for number, node in enumerate(nodes):
        assert remember(folder / "runs", node, reason, "20261128-183858-ypnga", NOW - 60 + number)


def test_slurm_is_not_asked_if_no_node_is_remembered(plan: Plan, tmp_path: Path) -> None:
    made = plan(sinfo=f"touch {tmp_path}/asked")
    assert exclusions(made).nodes == []
    assert not (tmp_path / "asked").exists()


def test_nodes_are_excluded_with_reason_and_end(plan: Plan, tmp_path: Path) -> None:
    bad(tmp_path, "n7", "n2")
    request = Slurm().request(plan(exclude="n[4-5],n2"))
    assert "#SBATCH --exclude='n[4-5],n2,n7'\n" in request.text
    assert request.notes == (f"n7 is excluded until {date(NOW - 60 + 86400)}: it has lost its GPU (run "
                             "20261128-183858-ypnga)",)
    assert Slurm().notes(request) == list(request.notes)


def test_a_node_of_another_partition_does_not_matter(plan: Plan, tmp_path: Path) -> None:
    before = exclusions(plan())
    bad(tmp_path, "gpu1")
    assert exclusions(plan()) == before
    assert (before.nodes, before.notes) == ([], ())


@pytest.mark.parametrize(("nodes", "partition", "excluded"), [
    (1, 1, []),  # the only node
    (1, 2, ["n3"]),
    (2, 2, []),
    (2, 3, ["n3"]),
    (1, 6, ["n1", "n2", "n3"]),
    (4, 6, ["n2", "n3"]),
    (6, 6, []),
], ids=lambda value: str(value))
def test_enough_nodes_remain(plan: Plan, tmp_path: Path, nodes: int, partition: int, excluded: list[str]) -> None:
    """The last failures are excluded first; the partition is n3 and those before and after it."""
    rows = "\n".join(f"echo 'main*|{name}|idle'" for name in ("n3", "n2", "n1", "n4", "n5", "n6")[:partition])
    bad(tmp_path, "n1", "n2", "n3")
    found = exclusions(plan(nodes, sinfo=rows))
    assert found.nodes == excluded
    others = [note for note in found.notes if " is not excluded, because " in note]
    assert len(others) == min(3, partition) - len(excluded)
    assert all("too few nodes of the partition would remain" in note for note in others)


def test_nodes_that_are_down_are_not_counted(plan: Plan, tmp_path: Path) -> None:
    """n1 and n2 are all that is left; a node that is down may be excluded at no cost."""
    bad(tmp_path, "n1", "n4")
    rows = "\n".join(f"echo 'main*|n{number}|{state}'" for number, state in enumerate(
        ("idle", "allocated", "down*", "drained"), 1))
    assert exclusions(plan(1, sinfo=rows)).nodes == ["n1", "n4"]
    assert exclusions(plan(2, sinfo=rows)).nodes == ["n4"]


def test_a_node_that_the_profile_names_is_used(plan: Plan, tmp_path: Path) -> None:
    bad(tmp_path, "n2", "n3")
    found = exclusions(plan(nodelist="n[1-2]"))
    assert found.nodes == ["n3"]
    assert found.notes[0].startswith("n2 is not excluded, because the profile's nodelist names it: it has lost its GPU")


def test_slurm_has_the_last_word(plan: Plan, tmp_path: Path) -> None:
    """Only SLURM knows which nodes have the features and GPUs that the job requests."""
    bad(tmp_path, "n2")
    reject = "if grep -q exclude=; then echo 'Requested node configuration is not available' >&2; exit 1; fi"
    request = Slurm().request(plan(sbatch=reject))
    assert "--exclude" not in request.text
    assert request.notes[0].startswith("n2 is not excluded, because SLURM would reject the job without it: it has lost")


def test_a_job_that_slurm_rejects_anyway_is_shown_as_it_is(plan: Plan, tmp_path: Path) -> None:
    bad(tmp_path, "n2")
    assert "--exclude=n2" in Slurm().request(plan(sbatch="echo 'Invalid account' >&2; exit 1")).text


def test_without_an_answer_nothing_is_excluded(plan: Plan, tmp_path: Path) -> None:
    bad(tmp_path, "n2")
    (note,) = exclusions(plan(sinfo="echo 'Unable to contact slurm controller' >&2; exit 1")).notes
    assert note.startswith("n2 is not excluded, because SLURM does not say which nodes there are: ")


def test_a_dry_run_on_a_machine_without_slurm(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad(tmp_path, "n2")
    made = plan()
    monkeypatch.setenv("PATH", "/nowhere")
    assert "--exclude=n2\n" in Slurm().request(made).text
