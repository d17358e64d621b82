"""The drill passes where nothing is lost, and tells what is lost where something is."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result, Status
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import processes_of
from tests.tiny import write_config
from tests.warm import run_python

pytestmark = pytest.mark.slow


def drilled(folder: Path, *words: str, warm: bool) -> subprocess.CompletedProcess[str]:
    """`drumbeat drill` of the small experiment, which takes some 250 steps of 10 ms here."""
    command = [sys.executable, "-m", "drumbeat", "drill", str(write_config(folder)), "phases.head.epochs=25",
               "checkpoints.every_steps=30", "evaluation.batch_size=30", "data.workers=1", "--procs", "2", *words]
    return (run_python if warm else subprocess.run)(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(("kills", "seed"), [("9", "1"), ("3", None)], ids=["every kind", "any three"])
def test_nothing_is_lost(tmp_path: Path, kills: str, seed: str | None) -> None:
    seed = seed or str(random.randrange(10**6))
    done = drilled(tmp_path, "--kills", kills, "--seed", seed, warm=kills == "3")
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr}"
    lines = done.stdout.splitlines()
    assert lines[0] == f"drill      seed {seed}"
    assert "nothing lost" in done.stdout
    runs = sorted((tmp_path / "runs" / "tiny-drill").glob("2*"))
    assert len(runs) == 3
    assert [Status.require(run / "status.json").state for run in runs] == ["finished"] * 3
    assert not any(processes_of(View.read(RunDir(run))) for run in runs)


def test_a_difference_is_told(tmp_path: Path) -> None:
    """Of two runs that differ in the seed, held against each other as the drill does it."""
    from drumbeat.launch.drill.drill import _compare
    from tests.tiny import drumbeat, latest

    config = str(write_config(tmp_path))
    drumbeat(tmp_path, config, "--debug", "phases.head.epochs=0.5", "phases.finetune.epochs=0.5")
    first = latest(tmp_path)
    drumbeat(tmp_path, config, "--debug", "phases.head.epochs=0.5", "phases.finetune.epochs=0.5", "seed=7")
    second = latest(tmp_path)
    assert _compare(first, first, exact=True) == []
    told = _compare(second, first, exact=True)
    assert any("weights_sha256" in line for line in told)
    assert any("curve train/loss: other values" in line for line in told)
    replace(Result.require(second.result), steps=3).write(second.result)
    assert any("3 steps and" in line for line in _compare(second, first, exact=False))


def test_a_config_that_cannot_start_is_one_screen(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "drumbeat", "drill", str(write_config(tmp_path)), "--procs", "99"],
                          cwd=tmp_path, capture_output=True, text=True, check=False, env=None)
    assert done.returncode == 2
    assert "a batch of 12 cannot be shared by 99 ranks" in done.stderr
    assert not (tmp_path / "runs").exists()
    assert str(ROOT) not in done.stderr
