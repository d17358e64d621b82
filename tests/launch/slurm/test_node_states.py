"""Which nodes SLURM can use, and which it has lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.launch.slurm.node_states import lost_nodes, partition_nodes
from tests.launch.fake_slurm import programs

SINFO = "\n".join(["long*|n1|idle", "long*|n2|mixed", "long*|n3|down*", "short|n4|allocated", "long*|n5|drained",
                   "long*|n6|idle~", "long*|n7|idle*", "long*|n8|planned", "long*|n9|allocated#"])


@pytest.fixture(autouse=True)
def sinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo=f'echo "$*" > {tmp_path}/asked; echo "{SINFO}"'))


def test_the_nodes_of_the_default_partition(tmp_path: Path) -> None:
    answer, nodes = partition_nodes(None)
    assert answer.code == 0
    assert nodes == {"n1": True, "n2": True, "n3": False, "n5": False, "n6": True, "n7": False, "n8": True, "n9": True}
    assert "--partition" not in (tmp_path / "asked").read_text()


def test_the_nodes_of_other_partitions(tmp_path: Path) -> None:
    assert partition_nodes("long,short")[1]["n4"]
    assert "--partition=long,short" in (tmp_path / "asked").read_text()


def test_without_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="echo 'slurm_load_partitions: Unable to contact' >&2; exit 1"))
    answer, nodes = partition_nodes("long")
    assert (answer.code, nodes, lost_nodes(["n1"])) == (1, {}, [])


def test_lost_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "\n".join(["n1|idle", "n2|down*", "n2|down*", "n3|idle*", "n4|drained", "n5|fail", "n6|down"])
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo=f'echo "{rows}"'))
    assert lost_nodes(["n1", "n2", "n3", "n4", "n5"]) == ["n2", "n3", "n5"]
    assert lost_nodes([]) == []
