"""Stopping, resuming and cancelling a sweep."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import ConfigError, RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Status
from drumbeat.configs.run.sweep import Queue, SweepDir
from drumbeat.launch.commands.main import main
from drumbeat.launch.sweeps import control
from tests.launch.fake_slurm import programs
from tests.launch.sweeps.made import made_sweep, write_trial


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The trials that were submitted, in place of submitting them."""
    found: list[list[int]] = []
    monkeypatch.setattr(control, "submit", lambda folder, sweep, numbers: found.append(list(numbers)))
    return found


def test_stopped_and_resumed(tmp_path: Path, debug_here: Callable[[RunDir], None], submitted: list[list[int]]) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..4"})
    running = write_trial(folder, 0, "running")
    debug_here(running)
    for number, state in ((1, "finished"), (2, "failed"), (3, "stopped")):
        write_trial(folder, number, state)  # type: ignore[arg-type]
    assert control.stop(folder).startswith("s: no more trials start; 1 that ran save a checkpoint and exit.\nTo resume")
    assert running.attempt(0).stop.exists()
    assert folder.read().halted
    assert control.resume(folder) == f"s: 1 to start, 3 to resume\ndrumbeat status {folder.path}"
    assert submitted == [[0, 2, 3, 4]]
    assert (folder.read().halted, folder.read().again) == (False, (0, 2, 3))


@pytest.mark.parametrize("end", [control.stop, control.cancel])
def test_a_pruned_trial_stays_pruned(tmp_path: Path, end: Callable[[SweepDir], str]) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..2"}, asha=True, pruned=(1,))
    write_trial(folder, 0, "finished")
    pruned = write_trial(folder, 1, "stopped")
    assert end(folder).startswith("s: no more trials start; 0 that ran ")
    assert Status.require(pruned.status).state == "stopped"


def test_a_finished_sweep_is_not_resumed(tmp_path: Path, submitted: list[list[int]]) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..1"}, asha=True, pruned=(1,))
    write_trial(folder, 0, "finished")
    write_trial(folder, 1, "stopped")
    assert control.resume(folder) == "s: nothing is left to start (1 finished, 1 pruned)"
    assert submitted == []


@pytest.fixture
def on_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepDir:
    """A sweep in array 12, of which task 1 runs and tasks 2 and 3 wait."""
    folder = made_sweep(tmp_path / "runs", {"seed": "0..5"}, backend="slurm", jobs=("12",))
    listed = "".join(f"12_{task}|{folder.read().id}@0\\n" for task in (1, 2, 3))
    monkeypatch.setenv("PATH", programs(tmp_path, scancel=f'echo "$*" >> {tmp_path}/cancelled',
                                        squeue=f"case $* in *--array*) printf '{listed}' ;; esac"))
    write_trial(folder, 0, "failed", backend="slurm", job="12_0")
    return folder


def test_resuming_leaves_what_slurm_has_in_its_queue(on_slurm: SweepDir, submitted: list[list[int]]) -> None:
    assert control.resume(on_slurm).startswith("s: 2 to start, 1 to resume\n")
    assert submitted == [[0, 4, 5]]


def test_waiting_tasks_are_cancelled(on_slurm: SweepDir, tmp_path: Path) -> None:
    control.stop(on_slurm)
    control.cancel(on_slurm)
    assert (tmp_path / "cancelled").read_text().splitlines() == ["--state=PENDING 12", "12"]


def test_slurm_does_not_answer(on_slurm: SweepDir, tmp_path: Path) -> None:
    programs(tmp_path, squeue="echo 'Unable to contact slurm controller' >&2; exit 1", scancel="exit 1")
    with pytest.raises(RunError, match="the sweep cannot be resumed: SLURM does not answer"):
        control.resume(on_slurm)
    with pytest.raises(RunError, match=r"its jobs are still\s+queued"):
        control.stop(on_slurm)


def test_a_killed_queue_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first command that looks, unless it was halted, or ran elsewhere."""
    started: list[Any] = []
    monkeypatch.setattr(control, "start_queue", lambda folder: started.append(folder) or 7)
    folder = made_sweep(tmp_path, {"seed": "0..1"})

    def look(**changes: Any) -> int:
        replace(folder.read(), **changes).write(folder.record)
        assert main(["status", str(folder.path)]) == 0
        return len(started)

    assert look() == 0, "no queue has ever run"
    Queue(space="another machine").write(folder.queue)
    assert look() == 0
    Queue().write(folder.queue)
    assert look() == 1
    assert look(halted=True) == 1


def test_trials_that_could_not_be_started(tmp_path: Path, submitted: list[list[int]],
                                          capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Are said to be refused, and why, and are tried again by `resume` alone."""
    monkeypatch.setattr(control, "start_queue", lambda folder: pytest.fail("started"))
    folder = made_sweep(tmp_path, {"seed": "0..1"}, refused={"1": "error: batch_size is 0\n  fix    Raise it"})
    write_trial(folder, 0, "finished")
    Queue().write(folder.queue)
    assert main(["status", str(folder.path)]) == 0
    text = capsys.readouterr().out
    assert "state      ended: 1 finished, 1 refused\n" in text
    assert "refused    trial 1: batch_size is 0\n" in text
    assert f"resume     drumbeat resume {folder.path}\n" in text
    assert control.resume(folder).startswith("s: 1 to start, 0 to resume")
    assert submitted == [[1]] and folder.read().refused == {}


def test_a_queue_that_will_not_come_back_is_resumed_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a restart of the machine."""
    folder = made_sweep(tmp_path, {"seed": "0..1"})
    Queue(space="before the restart").write(folder.queue)
    assert main(["status", str(folder.path)]) == 0
    assert f"queue      not running\nresume     drumbeat resume {folder.path}\n" in capsys.readouterr().out


NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("name", ["", "sweep.json", "sweep_config.yaml", "sweep_plan.json"])
def test_the_sweep_of_another_user_is_executed_only_with_trust(
        tmp_path: Path, name: str, submitted: list[list[int]], monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    """`status` does not start its queue again; `resume` and `sweep --extend` ask."""
    monkeypatch.setattr(control, "start_queue", lambda folder: pytest.fail("started"))
    folder = made_sweep(tmp_path, {"seed": "0..1"})
    Queue().write(folder.queue)
    os.chown(folder.path / name, NOBODY, NOBODY)
    assert main(["status", str(folder.path)]) == 0
    for words in (["resume", str(folder.path)], ["sweep", "--extend", str(folder.path), "seed=0..2"]):
        assert main(words) == 2
        assert "another user has written them" in " ".join(capsys.readouterr().err.split())
    assert main(["resume", str(folder.path), "--trust"]) == 0
    assert submitted == [[0, 1]]


def test_a_sweep_is_resumed_as_it_was_started() -> None:
    args = argparse.Namespace(words=["seed=3"], gpus=2, procs=None, nodes=None, slurm=False, here=False, debug=False,
                              profile=None)
    with pytest.raises(ConfigError, match="given  seed=3 --gpus"):
        control.check_unchanged(args)
