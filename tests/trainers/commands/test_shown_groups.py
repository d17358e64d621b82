"""The table of parameter groups in `drumbeat show`."""

from __future__ import annotations

from pathlib import Path

from drumbeat.configs.load import load
from drumbeat.trainers.build import build_model
from drumbeat.trainers.commands.shown_groups import groups_table
from tests.tiny import write_config


def table(folder: Path, *changes: str) -> list[list[str]]:
    config = load(write_config(folder), changes).config
    return [line.split() for line in groups_table(config, build_model(config)) if line]


def test_a_phase_without_groups_has_none(tmp_path: Path) -> None:
    assert table(tmp_path) == []


def test_a_row_for_each_group_without_what_is_frozen(tmp_path: Path) -> None:
    rows = table(tmp_path, "phases.head.groups.vectors={ndim: [1], optimizer: {weight_decay: 0.1}}",
                 "phases.head.groups.last={match: ['head.6'], optimizer: {_target_: torch.optim.Muon, lr: 0.5}}")
    assert rows[0] == ["groups", "of", "head", "optimizer", "tensors", "parameters", "lr", "weight_decay"]
    assert rows[1:] == [["others", "Adam", "1", "16,384", "0.01", "0"],
                        ["vectors", "Adam", "6", "1,122", "0.01", "0.1"],
                        ["last", "Muon", "1", "64", "0.5", "0.1"]]
