"""Facts about training: the same samples and nearly the same numbers at any width, and learning at all."""

from __future__ import annotations

import json
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result, Saved, Status
from drumbeat.configs.run.view import View
from drumbeat.data.order import Stream
from drumbeat.data.schedule import Schedule
from drumbeat.trainers.checkpoints.manager import Checkpoints
from drumbeat.trainers.checkpoints.state import weights_sha256
from tests.tiny import drumbeat, latest, write_config
from tests.warm import run_python

pytestmark = pytest.mark.slow


def seen(folder: Path) -> list[list[int]]:
    """The samples of each training step over all ranks, sorted; the first of a phase is the discarded pass."""
    ranks = [[json.loads(line) for line in file.read_text().splitlines()] for file in folder.glob("seen-*.jsonl")]
    return [sorted(chain.from_iterable(parts)) for parts in zip(*ranks, strict=True)]


def test_the_same_samples_in_the_same_steps_on_one_two_and_three_ranks(tmp_path: Path) -> None:
    """And they are those of the closed form."""
    expected = []
    for phase, table in enumerate([Schedule(100, 12, 2), Schedule(100, 10, 2.5)]):
        stream = Stream(100, 0, phase)
        steps = [sorted(stream.indices(np.array(table.positions(k))).tolist()) for k in range(table.steps)]
        expected += [steps[0], *steps]
    for ranks in (1, 2, 3):
        (folder := tmp_path / str(ranks)).mkdir()
        drumbeat(folder, str(write_config(folder)), "--procs", str(ranks), "model._target_=tests.tiny.Witness",
                 f"model.folder={folder}", "data.train._target_=tests.tiny.Numbered", "data.train.n=100",
                 "data.transforms.train=[]", "phases.head.freeze=[]", "micro_batch_size=null", "data.workers=1")
        assert seen(folder) == expected
        assert Result.require(latest(folder).result).samples_seen == 17 * 12 + 25 * 10


def test_the_gradient_is_that_of_the_whole_batch_at_any_width(tmp_path: Path) -> None:
    """Without BatchNorm and dropout, what is left to differ is the order of summation."""
    losses = []
    for name, flags in {"one": ["--procs", "1"], "two": ["--procs", "2"], "five": ["--procs", "5"],
                        "cut": ["--procs", "1", "micro_batch_size=1"]}.items():
        (folder := tmp_path / name).mkdir()
        drumbeat(folder, str(write_config(folder)), "model._target_=tests.tiny.Linear", "phases.head.freeze=[]", *flags)
        result = Result.require(latest(folder).result)
        losses.append([result.last["loss"], result.test["loss"]])
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-5)


def test_a_stop_saves_leaves_and_resumes_without_a_step_twice(tmp_path: Path, undisturbed: RunDir) -> None:
    """The curves of a run that was stopped have each step once, and end where the uninterrupted run's do."""
    stopped, config = tmp_path, write_config(tmp_path)
    drumbeat(stopped, str(config), "--procs", "2", "task._target_=tests.tiny.StopsItself", "task.after=40",
             f"task.runs={stopped / 'runs'}", expect=130)
    saved = Saved.require(latest(stopped).attempts / "000" / "saved.json")
    assert saved.state == "stopped"
    drumbeat(stopped, "--resume", "tiny")
    result = Result.require(latest(stopped).result)
    assert result == Result.require(undisturbed.result)
    runs = (undisturbed, latest(stopped))
    for run in runs:
        beat = View.read(run).heartbeat
        assert beat and (beat.monitor, beat.best) == ("loss", result.best["loss"])
    curves = [EventAccumulator(str(run.tensorboard)).Reload() for run in runs]
    for name in ("train/loss", "validation/loss", "train/lr"):
        one, other = ([(event.step, event.value) for event in curve.Scalars(name)] for curve in curves)
        assert one == other
        assert len(dict(one)) == len(one)


STOPS = {"in start-up": 1, "in an evaluation": 32, "in the evaluation that ends a phase": 60, "between phases": 64,
         "in the last step": 147}
"""By the number of the loss, of three micro-batches a step, that is being computed when the stop is asked for."""

RUNS = """
import sys
from pathlib import Path
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.records import Status
from drumbeat.launch.commands.main import main
from tests.tiny import latest

config, here, *stops = sys.argv[1:]
for stop in stops:
    runs = Path(here) / stop / "runs"
    words = ["run", config, "--debug", "--no-preflight", "--runs", str(runs)]
    main([*words, "task._target_=tests.tiny.StopsItself", f"task.after={stop}", f"task.runs={runs}"])
    run = latest(Path(here) / stop)
    state = Status.require(run.status).state
    print("STATE", stop, state)
    if state != "finished":
        main(["resume", str(run.path), "--debug"])
"""


def test_a_stop_is_as_good_at_any_moment(tmp_path: Path) -> None:
    """All in one process, which need not import torch again and again."""
    config = str(write_config(tmp_path))
    stops = [str(after) for after in (*STOPS.values(), 10**9)]
    done = run_python([sys.executable, "-c", RUNS, config, str(tmp_path), *stops], cwd=ROOT, capture_output=True,
                      text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    states = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("STATE")]
    assert states == ["stopped"] * 4 + ["finished"] * 2
    results = [Result.require(latest(tmp_path / stop).result) for stop in stops]
    for where, result in zip(STOPS, results, strict=False):
        assert result == results[-1], where


def test_a_run_tells_what_it_does(tmp_path: Path) -> None:
    """Everything TensorBoard should show is there, and the digest is that of the last checkpoint's weights."""
    drumbeat(tmp_path, str(write_config(tmp_path)), "--debug")
    run = latest(tmp_path)
    events = EventAccumulator(str(run.tensorboard), size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["scalars"]) == {
        "train/loss", "train/lr", "train/epoch", "validation/loss", "validation/accuracy", "speed/samples_per_second",
        "speed/step_seconds", "speed/data_wait_fraction"}
    assert set(events.Tags()["images"]) == {"train/head", "train/finetune", "validation/worst_samples"}
    assert events.Tags()["tensors"] == ["config/text_summary"]
    result = Result.require(run.result)
    last = Checkpoints(run, run.attempt(0), keep=2).newest()
    assert last is not None
    assert weights_sha256(last.model()) == result.weights_sha256
    assert Status.require(run.status).state == "finished"
    assert result.best["accuracy"] > 0.8  # the classes differ in brightness: chance is 0.5
