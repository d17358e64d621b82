"""One rank of a run: which checkpoint and progress it starts from, what it says of a pause, and how it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork
from drumbeat.configs.run.rank_records import Imports
from drumbeat.configs.run.records import RankError
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config
from drumbeat.data.images import ImageFolder
from drumbeat.data.user_code import DamagedSampleError, UnreadableError
from drumbeat.trainers.build import Sets
from drumbeat.trainers.checkpoints.manager import Checkpoint, Checkpoints
from drumbeat.trainers.guards import NotFiniteError
from drumbeat.trainers.sample_counts import describe_training_set
from drumbeat.trainers.tracking import Tracker
from drumbeat.trainers.worker import (
    agree_on_checkpoint,
    initial_progress,
    report_imports,
    report_pause,
    write_error,
)
from drumbeat.trainers.world import World
from tests.runs import write_plan

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "tiny" / "run")
    write_plan(run)
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six tiny images in two classes."""
    for number in range(6):
        path = tmp_path / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(path)
        os.utime(path, (1000, 1000))
    return tmp_path


def resumed(folder: Path, before: dict[str, Any], *, allow_change: bool = False, best: dict[str, Any] | None = None,
            has_best: bool = True, fork: Fork | None = None) -> Progress:
    """From a checkpoint; a `fork` from the beginning."""
    config: Config = build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 4, "model": {"_target_": "x"}, "data": {"allow_change": allow_change},
        "phases": {"only": {"epochs": 1, "optimizer": {"_target_": "x"}}}})])
    sets = Sets(train=ImageFolder(root=str(folder)), validation=None, test=None, train_transforms=[],
                evaluate_transforms=[])
    checkpoint = Checkpoint(folder, CheckpointState(progress=Progress(step=3, data=before, best=best or {})))
    return initial_progress(None if fork else checkpoint, sets, config, ALONE, has_best=has_best, fork=fork)


def test_a_run_resumes_with_the_same_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = describe_training_set(ImageFolder(root=str(folder)))
    assert before["samples"] == 6
    assert resumed(folder, before) == Progress(step=3, data=before)
    assert resumed(folder, {}).data == before  # an old checkpoint without a description of the set
    assert capsys.readouterr().out == ""


def test_a_run_without_its_best_weights_continues_without_them(folder: Path) -> None:
    progress = resumed(folder, {}, best={"step": 2}, has_best=False)
    assert (progress.best, progress.step, len(progress.changes)) == ({}, 3, 1)
    assert resumed(folder, {}, best={"step": 2}).best == {"step": 2}


def test_a_run_resumes_with_rewritten_files_and_warns_once(folder: Path,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    before = describe_training_set(ImageFolder(root=str(folder)))
    os.utime(folder / "class0" / "2.png", (2000, 2000))
    now = resumed(folder, before).data
    assert now["files"] == before["files"]
    assert now["times"] != before["times"]
    assert capsys.readouterr().out == ("note: files of the training set have other times than at the checkpoint, but "
                                       "the same names and sizes\n")
    resumed(folder, now)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("change", ["renamed", "moved to another class", "another size"])
def test_a_run_resumes_with_different_files_only_if_allowed(folder: Path, change: str,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    before = describe_training_set(ImageFolder(root=str(folder)))
    file = folder / "class0" / "2.png"
    if change == "another size":
        file.write_bytes(file.read_bytes() + b"\0")
        os.utime(file, (1000, 1000))
    else:
        file.rename(folder / ("class0/22.png" if change == "renamed" else "class1/2.png"))
    with pytest.raises(PreflightError, match="the same number of samples, but different files"):
        resumed(folder, before)
    resumed(folder, before, allow_change=True)
    assert "as data.allow_change allows" in capsys.readouterr().out


def test_a_fork_from_the_beginning_has_the_files_of_its_parent(folder: Path) -> None:
    """Otherwise it would share no step with it."""
    fork = Fork(parent="20260101-100000-aaaaa", folder="runs", step=3, start=0, phase=0, parts=(),
                data=describe_training_set(ImageFolder(root=str(folder))))
    assert resumed(folder, {}, fork=fork) == Progress(data=fork.data)
    (folder / "class0" / "2.png").rename(folder / "class0" / "22.png")
    with pytest.raises(PreflightError, match="the same number of samples, but different files"):
        resumed(folder, {}, fork=fork)


def test_a_run_does_not_resume_if_a_sample_is_missing(folder: Path) -> None:
    before = describe_training_set(ImageFolder(root=str(folder)))
    (folder / "class0" / "2.png").unlink()
    with pytest.raises(PreflightError, match="6 samples at the checkpoint, 5 now"):
        resumed(folder, before, allow_change=True)


def test_only_rank_0_reads_the_files(folder: Path) -> None:
    """Because only rank 0 saves, and one error is enough."""
    second = replace(ALONE, rank=1)
    config = build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 4, "model": {"_target_": "x"},
        "phases": {"only": {"epochs": 1, "optimizer": {"_target_": "x"}}}})])
    sets = Sets(train=ImageFolder(root=str(folder)), validation=None, test=None, train_transforms=[],
                evaluate_transforms=[])
    progress = Progress(step=3, data={"samples": 7})
    assert initial_progress(Checkpoint(folder, CheckpointState(progress=progress)), sets, config, second) is progress


def test_a_run_that_waits_for_its_disk_says_so(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.write_status("running", attempt=(attempt := run.claim_attempt()).number)
    tracker = Tracker(run, attempt, step=0, config_text="name: x")
    report_pause(tracker, "the disk is full")
    assert (View.read(run).state, View.read(run).verdict) == ("paused", "the disk is full")
    report_pause(tracker, "")
    assert (View.read(run).state, View.read(run).verdict) == ("running", "")
    assert capsys.readouterr().out == "paused     the disk is full\nrunning     \n"
    tracker.close()


@pytest.mark.parametrize(("waited", "printed"), [(2.0, ""), (88.4, """\
note: imports took 94 s, 88 s of which they waited for files: /shared/env is on
      a slow disk. A copy on each node's own disk, or a container image, starts
      faster
""")])
def test_slow_imports_are_told(run: RunDir, capsys: pytest.CaptureFixture[str], waited: float, printed: str) -> None:
    imports = Imports(seconds=94.2, waited=waited, folder="/shared/env")
    tracker = Tracker(run, run.claim_attempt(), step=0, config_text="name: x")
    report_imports(tracker, imports)
    tracker.status(now=True)
    tracker.close()
    assert capsys.readouterr().out == printed
    heartbeat = View.read(run).heartbeat
    assert heartbeat is not None and heartbeat.imports == imports


def test_rank_0_finds_the_newest_checkpoint(images: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    """The other ranks ask rank 0; without it they find nothing of their own."""
    checkpoints = Checkpoints(images, images.attempt(0), keep=2)
    found = agree_on_checkpoint(checkpoints, ALONE)
    assert found is not None
    assert found.progress.step == 3
    assert agree_on_checkpoint(checkpoints, replace(ALONE, rank=1)) is None
    (found.path / "model.safetensors").unlink()
    assert agree_on_checkpoint(checkpoints, ALONE) is None
    assert "step-00000003" in capsys.readouterr().out


def test_a_run_without_checkpoints_starts_from_the_beginning(run: RunDir) -> None:
    assert agree_on_checkpoint(Checkpoints(run, run.claim_attempt(), keep=2), ALONE) is None


@pytest.fixture
def handler() -> Iterator[None]:
    """Puts back the handler of SIGCHLD."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(("error", "final"), [
    (PreflightError(Fault(what="the data is missing")), True), (NotFiniteError("NaN or Inf loss"), True),
    (DamagedSampleError("sample 3: it is empty"), True), (UnreadableError("sample 3: the disk is gone"), False),
    (DamagedError(Path("plan.json"), "half a file"), False), (OSError("the disk is gone"), False),
])
def test_an_error_says_whether_a_restart_would_fail_in_the_same_way(
        run: RunDir, monkeypatch: pytest.MonkeyPatch, handler: None, error: Exception, final: bool) -> None:
    monkeypatch.setenv("RANK", "3")
    attempt = run.claim_attempt()
    try:
        raise error
    except Exception as caught:
        write_error(attempt, caught, step=17)
    found = RankError.require(attempt.error(3))
    assert (found.rank, found.step, found.type, found.user_error) == (3, 17, type(error).__name__, final)
    assert str(error).splitlines()[0].removeprefix("error: ") in found.message
    assert found.traceback.startswith("Traceback (most recent call last):\n")
    assert "raise error" in found.traceback
