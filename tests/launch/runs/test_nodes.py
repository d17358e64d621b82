"""What `drumbeat nodes` prints, and forgets."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.bad_nodes import DAY, remember, remembered
from drumbeat.launch.backends.exclusions import date
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.nodes import forget_nodes, nodes_text

NOW = time.time()
RUN = "20261128-183858-ypnga"


def test_the_list(tmp_path: Path) -> None:
    """A reason may hold anything."""
    remember(tmp_path, "gpu12", "rank 3 lost its GPU \x1b[31m" + "and more " * 9, RUN, NOW - 60)
    remember(tmp_path, "n2", "SLURM lost it", "20261128-183858-zzzzz", NOW)
    lines = nodes_text(tmp_path).splitlines()
    assert lines[0] == f"gpu12  from {date(NOW - 60)} to {date(NOW - 60 + DAY)}, run {RUN}"
    assert lines[1].startswith("       rank 3 lost its GPU \\x1b[31mand more")
    assert lines[2].startswith("       and more")
    assert lines[3:5] == [f"n2     from {date(NOW)} to {date(NOW + DAY)}, run 20261128-183858-zzzzz",
                          "       SLURM lost it"]
    assert lines[5].startswith("To use a node again: ")
    assert lines[5].endswith("drumbeat nodes --forget NODE")
    assert max(map(len, lines[:5])) <= 80


def test_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "--runs", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out == f"no failed node is remembered in {tmp_path}/runs: jobs may use all nodes\n"


def test_forgetting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for node in ("n1", "n2", "n3", "gpu1"):
        remember(tmp_path, node, "lost", RUN, NOW)
    assert main(["nodes", "--runs", str(tmp_path), "--forget", "n[1-2]", "gpu1"]) == 0
    assert capsys.readouterr().out == "forgotten: n1, n2, gpu1\n"
    assert [one.node for one in remembered(tmp_path)] == ["n3"]


def test_a_node_that_is_not_remembered(tmp_path: Path) -> None:
    remember(tmp_path, "gpu17", "lost", RUN, NOW)
    with pytest.raises(RunError, match=r"node 'gpu71' is not remembered[\s\S]*Did you mean 'gpu17'\?"):
        forget_nodes(tmp_path, ["gpu17", "gpu71"])
    assert len(remembered(tmp_path)) == 1, "nothing is forgotten then"
    with pytest.raises(RunError, match="No node is remembered there"):
        forget_nodes(tmp_path / "elsewhere", ["n[1-"])
