"""Runs on a GPU: they learn, resume without loss after a kill, and name the key to change if memory runs out."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import FirstStep, Heartbeat, Result, Status
from drumbeat.configs.run.view import View
from tests.gpu.conftest import SIZES
from tests.tiny import drumbeat, latest, write_config

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

BATCH_KEY = "micro_batch_size"
"""The key that bounds how many samples are on the device at once."""


def test_the_flagship_learns(flagship: RunDir, device: str) -> None:
    assert View.read(flagship).state == "finished"
    assert JobPlan.require(flagship.plan).topology.device == device
    losses = [point.value for point in EventAccumulator(str(flagship.tensorboard)).Reload().Scalars("train/loss")]
    third = len(losses) // 3
    assert statistics.mean(losses[-third:]) < 0.9 * statistics.mean(losses[:third])


def test_status_holds_the_memory_in_use(flagship: RunDir, device: str) -> None:
    used = Heartbeat.require(flagship.attempt(0).heartbeat).gpu
    if device == "cuda":
        assert 0 < used["peak"] <= used["reserved"] < used["total"]
        assert 0 <= used.get("utilization", 0) <= 100
    else:
        assert used == {}


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(flagship: RunDir, home: Path, device: str,
                                                                  flagship_arguments: list[str]) -> None:
    """SIGKILL, after which it restarts by itself; SIGKILL in the first step after that, after which it gives up; then
    `--resume`."""
    fuse = ["task._target_=tests.tiny.Fuse", f"task.folder={home}", f"task.at=[{SIZES[device].kill_at},2]"]
    drumbeat(home, *flagship_arguments, *fuse, "launch.restarts=1", "--name", "killed", expect=1)
    run = latest(home, "killed")
    assert View.read(run).state == "failed"
    drumbeat(home, "--resume", str(run.path))
    assert len(list(run.attempts.iterdir())) == 3
    assert FirstStep.require(run.attempt(2).first_step).resumed_from > 0
    assert Result.read(run.result) == Result.require(flagship.result)


def test_a_run_out_of_memory_names_the_key_to_change(tmp_path: Path, device: str, one_rank: list[str]) -> None:
    """It finishes once that key is changed."""
    arguments = [str(write_config(tmp_path)), *one_rank, "model._target_=tests.gpu.subjects.Greedy",
                 "launch.restarts=0", "phases.finetune=null", "phases.head.epochs=0.2"]
    drumbeat(tmp_path, *arguments, f"{BATCH_KEY}=null", expect=1)
    verdict = Status.require(latest(tmp_path).status).verdict
    assert "ran out of" in verdict
    assert BATCH_KEY in verdict or device == "cpu"
    drumbeat(tmp_path, *arguments, f"{BATCH_KEY}=2")
    assert View.read(latest(tmp_path)).state == "finished"


def test_debug_takes_the_first_gpu(tmp_path: Path, device: str) -> None:
    drumbeat(tmp_path, str(write_config(tmp_path)), "--debug", f"launch.gpus={'null' if device == 'cuda' else 0}",
             "phases.finetune=null", "phases.head.epochs=0.2")
    assert JobPlan.require(latest(tmp_path).plan).topology.device == device
