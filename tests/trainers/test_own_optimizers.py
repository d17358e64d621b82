"""Runs with optimizers and schedulers as people write them go on bit for bit after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.checkpoints.state import weights_sha256
from tests.trainers.in_process import attempted

CONFIG = """
name: rows
batch_size: 4
precision: fp32
model:
  _target_: tests.trainers.test_own_optimizers.network
data:
  train: {_target_: tests.trainers.test_loop.Rows, n: 12}
  workers: 0
phases:
  only:
    epochs: 4
    optimizer: {_target_: torch.optim.SGD, lr: 0.1, momentum: 0.9}
evaluation: {monitor: loss, mode: min}
tracking: {images: 0}
launch: {gpus: 0, cpus_per_rank: 1}
"""
OWN = "tests.trainers.own_optimizers"


def network() -> object:
    from torch import nn

    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def train(run: RunDir, changes: list[str], stop_after: int | None = None) -> str:
    """One attempt, which a stop request may end; the digest of its weights."""
    (run.path / "rows.yaml").write_text(CONFIG)
    training, _ = attempted(run, stop_after, changes)
    return weights_sha256(training.model.state_dict())


def new_run(folder: Path) -> RunDir:
    folder.mkdir()
    (folder / "config.yaml").touch()
    return RunDir(folder)


GROUPS = ["groups.vectors={ndim: [0, 1], optimizer: {momentum: 0.5}}",
          "groups.matrices={ndim: [2], optimizer: {_target_: torch.optim.Muon, lr: 0.05}}",
          "groups.last={match: [2.bias], optimizer: {_target_: torch.optim.AdamW, lr: 0.02}}"]


@pytest.mark.parametrize("change", [
    *GROUPS, f"optimizer={{_target_: {OWN}.ScheduleFree, lr: 0.05}}",
    f"optimizer={{_target_: {OWN}.decayed, lr: 0.05}}",
    f"groups.all.optimizer={{_target_: {OWN}.ScheduleFree, lr: 0.05}}",
    "scheduler={_target_: torch.optim.lr_scheduler.CosineAnnealingLR, T_max: '${phase.steps}'}",
    *(f"optimizer={{_target_: {OWN}.{name}, lr: 0.05}}" for name in ("Chained", "Forgetful", "Lookahead", "Averaged",
                                                                     "Wide")),
    "optimizer={_target_: torch.optim.Muon, lr: 0.05}",
    "optimizer={_target_: torch.optim.AdamW, foreach: false, lr: {_target_: torch.tensor, data: 0.05}}",
    f"scheduler={{_target_: {OWN}.ByName, switch: 4}}",
    *(f"scheduler={{_target_: {OWN}.{name}}}" for name in ("Plain", "Attributes")),
    "scheduler={_target_: torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.1, total_steps: 20}",
    "scheduler={_target_: torch.optim.lr_scheduler.CyclicLR, base_lr: 0.01, max_lr: 0.1, step_size_up: 3}"])
def test_a_run_with_it_is_the_same_after_a_stop(tmp_path: Path, change: str) -> None:
    changes = [f"phases.only.{change}"]
    if change.startswith("optimizer") and "Muon" in change:  # takes matrices alone
        changes.append("model={_target_: torch.nn.Linear, in_features: 4, out_features: 3, bias: false}")
    straight = train(new_run(tmp_path / "straight"), changes)
    stopped = new_run(tmp_path / "stopped")
    assert train(stopped, changes, stop_after=5) != straight
    assert train(stopped, changes) == straight


def test_all_groups_at_once_with_layers_and_a_nested_schedule(tmp_path: Path) -> None:
    at = "torch.optim.lr_scheduler"
    changes = [f"phases.only.{change}" for change in (
        *GROUPS[::-1], "layers=['0', '2']", "layer_decay=0.5", f"""scheduler={{_target_: {at}.SequentialLR,
        milestones: ["${{phase.steps // 3}}"], schedulers: [{{_target_: {at}.LinearLR, total_iters: 4}},
        {{_target_: {at}.CosineAnnealingLR, T_max: "${{phase.steps - phase.steps // 3}}"}}]}}""")]
    straight = train(new_run(tmp_path / "straight"), changes)
    for stop in (2, 4, 9):
        stopped = new_run(tmp_path / f"stopped-{stop}")
        train(stopped, changes, stop_after=stop)
        assert train(stopped, changes) == straight
