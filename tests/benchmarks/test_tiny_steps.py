"""The benchmark of tiny steps: its parts, without a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import tiny_peers
from benchmarks.tiny_peers import PEERS, STEPS, WARM, Net
from benchmarks.tiny_steps import CASES, NAMES, Case, command, compared, config_values, per_step
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_case_has_a_config_and_known_peers(case: Case) -> None:
    config = build_config([Layer(values=config_values(case), origin="test")])
    assert (config.data.workers, config.launch.procs) == (case.workers, case.ranks)
    for peer in case.peers:
        assert peer in PEERS
        assert (f"--nproc-per-node={case.ranks}" in command(case, peer)) == (case.ranks > 1)


def test_the_network_marks_two_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKS", str(tmp_path / "marks"))
    net = Net([3])
    for passes in (WARM - 1, WARM, WARM + 1, WARM + STEPS):
        net.passes = passes - 1
        net(torch.zeros(1, tiny_peers.FEATURES))
    assert [len(json.loads(line)) for line in (tmp_path / "marks").read_text().splitlines()] == [2, 2]


def test_a_run_that_was_not_measured_to_its_end_gives_no_figure() -> None:
    assert per_step(f"[1.0, 2.0]\n[{1 + STEPS / 1e6}, {2 + 2 * STEPS / 1e6}]\n") == pytest.approx((1, 2))
    for marks in ("", "[1.0, 2.0]\n", "[1.0, 2.0]\n" * 3):
        with pytest.raises(ValueError, match="unpack"):
            per_step(marks)


def test_rows_are_ratios_of_medians() -> None:
    readings = {"ours": [(2.0, 4.0), (1.0, 3.0), (9.0, 5.0)], "arithmetic": [(1.0, 1.0)], "bare": [(4.0, 2.0)]}
    rows = compared("x", {**readings}, workers=True)
    assert [(row.name, row.peer_name, row.ours, row.ratio) for row in rows] == [
        ("x", NAMES["bare"], 2.0, 2.0), ("x, with the workers' time", NAMES["bare"], 4.0, 0.5)]
    assert len(compared("x", {**readings}, workers=False)) == 1
