"""Sweeps in the Python API: what `drumbeat sweep` and its siblings start, read and stop."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import drumbeat
from drumbeat.configs.errors import ConfigError, RunError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.records import Result
from drumbeat.configs.yaml_text import parse
from drumbeat.launch.sweeps import control
from tests.docs.warm import write_programs
from tests.launch.sweeps.made import made_sweep, write_trial
from tests.processes import until
from tests.tiny import CONFIG

LR = "phases.head.optimizer.lr"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> drumbeat.Sweep:
    """A sweep of six trials: two have finished, one has failed, and three wait."""
    monkeypatch.chdir(tmp_path)
    folder = made_sweep(tmp_path / "runs", {LR: "1e-3,3e-4", "seed": "0..2"})
    for number, state, best in ((0, "finished", 0.5), (1, "finished", 0.25), (3, "failed", None)):
        write_trial(folder, number, state, best=best, step=100)  # type: ignore[arg-type]
    return drumbeat.Sweep("s")


def test_what_it_tells(made: drumbeat.Sweep) -> None:
    assert made == drumbeat.Sweep(made.path) and made.name == "s"
    assert [one.state for one in made.trials] == ["finished", "finished", "waiting", "failed", "waiting", "waiting"]
    assert (made.state, made.status["best"], len(made.runs)) == ("waiting", 1, 3)
    assert made.best() == made.runs[1]
    table = made.to_pandas()
    assert [*table["loss"][:2]] == [0.5, 0.25] and [*table[LR]] == [1e-3] * 3 + [3e-4] * 3
    assert [*table["seed"]] == [0, 1, 2, 0, 1, 2]
    assert "best       loss 0.2500, trial 1" in str(made)
    with pytest.raises(RunError, match="there is no sweep 'missing'"):
        drumbeat.Sweep("missing")


def test_without_a_metric_there_is_no_best(tmp_path: Path) -> None:
    made_sweep(tmp_path, {"seed": "0..1"})
    with pytest.raises(RunError, match="no trial of s has a value of loss yet"):
        drumbeat.Sweep("s", tmp_path).best()


def test_stopped_and_resumed(made: drumbeat.Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped sweep is over, although trials wait, and so is one without a queue; one with a queue is not."""
    submitted: list[Any] = []
    monkeypatch.setattr(control, "submit", lambda folder, sweep, numbers: submitted.extend(numbers))
    assert made.wait(progress=False).state == "waiting"
    with made.folder.queue_lock(), pytest.raises(TimeoutError, match=r"\(3 waiting, 2 finished, 1 failed\) after 0 s"):
        made.wait(timeout=0)
    assert "no more trials start" in made.stop()
    assert made.wait(progress=False).state == asyncio.run(made.finished()).state == "stopped"
    assert "3 to start, 1 to resume" in made.resume()
    assert submitted == [2, 3, 4, 5]
    assert "no more trials start" in made.cancel()


def test_mistakes_are_the_screens_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    config: Any = parse(CONFIG).value
    with pytest.raises(ConfigError, match="Did you mean 'batch_size'"):
        drumbeat.sweep(config, {"batch_sise": [3, 4]}, procs=1)
    with pytest.raises(ConfigError, match="seed has no values"):
        drumbeat.sweep(config, {"seed": []}, procs=1)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_a_sweep_from_start_to_end(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Started from values, extended, and finished."""
    monkeypatch.chdir(tmp_path)
    programs = tmp_path_factory.mktemp("bin")
    write_programs(programs)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([f"{ROOT}/src", str(ROOT)]))
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    config: Any = parse(CONFIG).value
    config["phases"] = {"head": {**config["phases"]["head"], "epochs": 0.2}}
    sweep = drumbeat.sweep(config, {"seed": range(2), "batch_size": 10}, procs=1, max_parallel=1, preflight=False)
    assert sweep.extend({"seed": [2]}, preflight=False).wait().state == "finished"
    table = sweep.to_pandas()
    assert [*table["seed"]] == [0, 1, 2] and [run.config.batch_size for run in sweep.runs] == [10] * 3
    results = [Result.require(run.folder.result) for run in sweep.runs]
    assert len({result.weights_sha256 for result in results}) == 3
    assert sweep.best().metrics["validation/loss"] == table["loss"].min()
    until(lambda: not sweep.folder.queue_is_running())
