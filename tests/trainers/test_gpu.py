"""What needs a CUDA device. Not run so far: no GPU was at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.rundir import read_json
from tests.tiny import drumbeat, latest, write_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
RANKS = str(torch.cuda.device_count())


def test_a_run_on_all_gpus_finishes_and_learns(tmp_path: Path) -> None:
    drumbeat(tmp_path, str(write_config(tmp_path)), "--gpus", RANKS, "precision=auto")
    assert read_json(latest(tmp_path).result)["best"]["accuracy"] > 0.7


def test_a_rank_killed_on_the_gpu_changes_nothing(tmp_path: Path) -> None:
    (straight := tmp_path / "straight").mkdir()
    (killed := tmp_path / "killed").mkdir()
    config = write_config(tmp_path)
    fused = "phases.head.optimizer.fused=true"  # which counts its steps on the device
    drumbeat(straight, str(config), "--gpus", RANKS, fused)
    drumbeat(killed, str(config), "--gpus", RANKS, fused, "task._target_=tests.tiny.Fuse", f"task.folder={killed}",
             "task.at=[8,20]")
    assert read_json(latest(killed).result) == read_json(latest(straight).result)


def test_the_gpu_in_use_is_told(tmp_path: Path) -> None:
    drumbeat(tmp_path, str(write_config(tmp_path)), "--gpus", "1")
    used = read_json(latest(tmp_path).status)["gpu"]
    assert 0 < used["peak"] <= used["held"] < used["all"]
    assert 0 <= used.get("busy", 0) <= 100


def test_debug_takes_the_first_gpu(tmp_path: Path) -> None:
    drumbeat(tmp_path, str(write_config(tmp_path)), "--debug", "launch.gpus=null")
    assert read_json(latest(tmp_path).plan)["topology"]["device"] == "cuda"
