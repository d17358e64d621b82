"""The queue of a sweep on this machine."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError, Fault, LaunchError
from drumbeat.configs.load import read
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Result
from drumbeat.configs.run.sweep import Queue, Sweep, SweepDir, Trial
from drumbeat.launch.sweeps import queue
from drumbeat.launch.sweeps.queue import QueueProcess
from drumbeat.launch.sweeps.states import states_of
from tests.launch.sweeps.made import made_sweep, write_trial
from tests.processes import alive, kill_all, until
from tests.runs import write_heartbeat
from tests.tiny import drumbeat, latest, write_config
from tests.warm import run_python


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the trials that a queue starts, in place of starting them."""
    found: list[int] = []

    def start(folder: SweepDir, sweep: Sweep, trial: Trial) -> None:
        found.append(trial.number)

    monkeypatch.setattr(queue, "start_trial", start)
    return found


def test_free_slots_are_filled_in_order(tmp_path: Path, started: list[int],
                                        debug_here: Callable[[RunDir], None]) -> None:
    """First what a command wants to be resumed. Trials that were stopped or have failed stay as they are."""
    folder = made_sweep(tmp_path, {"seed": "0..6"}, slots=4, again=(3,))
    debug_here(write_trial(folder, 1, "running"))
    for number, state in ((0, "finished"), (2, "stopped"), (3, "stopped"), (4, "failed")):
        write_trial(folder, number, state)  # type: ignore[arg-type]
    assert QueueProcess(folder).step()
    assert started == [3, 5, 6]
    assert folder.read().again == ()


def test_processes_of_trials_that_ended_long_ago_are_not_searched(tmp_path: Path, started: list[int],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is started again, with a thousand of them, would take half a minute."""
    asked: list[str] = []
    monkeypatch.setattr(queue, "running_evidence", lambda view: asked.append(view.run.id[-4:]) or "")
    folder = made_sweep(tmp_path, {"seed": "0..4"}, slots=4, again=(2,), asha=True, pruned=(1,))
    for number, state in enumerate(("finished", "stopped", "stopped", "failed")):
        write_trial(folder, number, state)  # type: ignore[arg-type]
    QueueProcess(folder).step()
    assert (asked, started) == (["0002"], [2, 4])


def test_a_halted_sweep_starts_nothing(tmp_path: Path, started: list[int],
                                       debug_here: Callable[[RunDir], None]) -> None:
    """The queue stays while trials run."""
    folder = made_sweep(tmp_path, {"seed": "0..2"})
    one = QueueProcess(folder)
    one.seen = folder.read()
    replace(folder.read(), halted=True).write(folder.record)
    one.start(folder.read().trials[0])
    assert not one.step()
    debug_here(write_trial(folder, 1, "running"))
    assert one.step()
    assert started == []


def test_trials_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    """One with a mistake is left out. GPUs that other runs hold are waited for."""
    folder = made_sweep(tmp_path, {"seed": "0..1"}, slots=1)
    problems: list[Exception] = [ConfigError(Fault(what="a mistake")),
                                 LaunchError(Fault(what="not enough free GPUs", where="launch.gpus"))]

    def start(folder: SweepDir, sweep: Sweep, trial: Trial) -> None:
        raise problems[trial.number]

    monkeypatch.setattr(queue, "start_trial", start)
    one = QueueProcess(folder)
    assert one.step() and folder.read().refused == {"0": "error: a mistake"}
    assert one.step() and [*folder.read().refused] == ["0"]
    before = capsys.readouterr().out
    assert "a mistake" in before and "not enough free GPUs" in before
    assert one.step()
    assert capsys.readouterr().out == "", "it waits"


def test_successive_halving(tmp_path: Path, started: list[int], debug_here: Callable[[RunDir], None]) -> None:
    """A running trial that is not among the best of a rung is asked to stop; what is promoted goes before new ones."""
    folder = made_sweep(tmp_path, {"seed": "0..3"}, slots=2, asha=True, rungs={"0": (0.5,), "1": (0.6,)}, pruned=(0, 1))
    write_trial(folder, 0, "stopped", best=0.5, step=12)
    write_trial(folder, 1, "stopped", best=0.6, step=12)
    running = write_trial(folder, 2, "running", best=0.9, step=12)
    debug_here(running)
    QueueProcess(folder).step()
    sweep = folder.read()
    assert (sweep.rungs["2"], sweep.pruned) == ((0.9,), (1, 2))
    assert running.attempt(0).stop.exists()
    assert started == [0]


def test_a_rung_is_reached_once(tmp_path: Path, started: list[int], debug_here: Callable[[RunDir], None]) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..2"}, slots=1, asha=True, rungs={"1": (0.6,), "2": (0.7,)})
    running = write_trial(folder, 0, "running", best=0.5, step=12)
    debug_here(running)
    one = QueueProcess(folder)
    one.step()
    write_heartbeat(running, step=20, steps=100, monitor="loss", best=0.4)
    one.step()
    assert (folder.read().rungs["0"], folder.read().pruned, running.attempt(0).stop.exists()) == ((0.5,), (), False)


def test_one_queue_at_a_time(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..2"})
    assert not folder.queue_is_running()
    with folder.queue_lock() as first:
        assert first and folder.queue_is_running()
        with folder.queue_lock() as second:
            assert second is None
    assert not folder.queue_is_running()


def test_a_look_at_the_lock_does_not_keep_a_queue_from_starting(tmp_path: Path) -> None:
    """`queue_is_running` holds the lock for an instant."""
    folder = made_sweep(tmp_path, {"seed": "0..2"})
    with folder.queue_lock():
        pass
    with open(tmp_path / "s" / ".queue.lock") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        threading.Timer(0.1, look.close).start()
        with folder.queue_lock() as lock:
            assert lock


@pytest.mark.slow
def test_the_queue_that_was_started_is_named(tmp_path: Path) -> None:
    """And not the one before it, which had this lock; one that cannot start is an error."""
    folder = made_sweep(tmp_path, {"seed": "0..2"}, halted=True)
    Queue(pid=1).write(folder.queue)
    plan = JobPlan.require(folder.plan)
    replace(plan, folder=str(tmp_path / "missing")).write(folder.plan)
    with pytest.raises(LaunchError, match="could not be started") as caught:
        queue.start_queue(folder)
    assert "FileNotFoundError" in str(caught.value)
    replace(plan, folder=str(tmp_path)).write(folder.plan)
    assert queue.start_queue(folder) == Queue.require(folder.queue).pid != 1


def states(folder: SweepDir) -> list[str]:
    return [one.state for one in states_of(folder, folder.read())]


def typed(folder: Path, *words: str) -> str:
    """What a command prints."""
    done = run_python([sys.executable, "-m", "drumbeat", *words], cwd=folder, text=True, capture_output=True,
                      check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return f"{done.stdout}{done.stderr}"


@pytest.mark.slow
def test_a_queue_and_its_trials_are_killed(tmp_path: Path) -> None:
    """Three trials, two at a time. The queue and then all processes of what runs are killed while one trial waits at a
    step. `status` starts the queue again, which resumes them, and all compute what single runs compute."""
    write_config(tmp_path)
    short = ["phases.finetune=null", "phases.head.epochs=0.6", "checkpoints.every_steps=2"]
    typed(tmp_path, "sweep", "tiny.yaml", "--procs", "1", "--max-parallel", "2", "--name", "s", "--no-preflight",
          "seed=0..2", *short, "task._target_=tests.tiny.Fuse", f"task.folder={tmp_path}", "task.at=[5]",
          "task.how=hold")
    folder = SweepDir(tmp_path / "runs" / "s")
    until((tmp_path / "blown-0").exists, seconds=180)
    process = Queue.require(folder.queue).pid
    os.kill(process, signal.SIGKILL)
    until(lambda: not alive(process) and not folder.queue_is_running())
    runs = [folder.run(folder.read(), number) for number in range(3)]
    for run in runs:
        if run.job.exists():
            kill_all(run)
    assert "the queue had ended early; it runs again as process" in typed(tmp_path, "status", "s")
    until(lambda: states(folder) == ["finished"] * 3, seconds=360)
    until(lambda: not folder.queue_is_running())
    for seed, run in enumerate(runs):
        drumbeat(tmp_path, "tiny.yaml", "--debug", f"seed={seed}", *short)
        assert read(run.config).seed == seed
        assert Result.require(run.result) == Result.require(latest(tmp_path).result)
    assert len({Result.require(run.result).weights_sha256 for run in runs}) == 3
    assert any(len([*run.attempts.iterdir()]) > 1 for run in runs)
