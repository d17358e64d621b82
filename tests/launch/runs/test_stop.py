"""Stopping a run after a checkpoint, and cancelling it at once."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import State, Status, StopRequest
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.runs.find import find_run
from drumbeat.launch.runs.stop import cancel, stop
from tests.launch.made import SECOND
from tests.processes import until
from tests.runs import write_job, write_state


def test_stopping(runs: Path, debug_here: Callable[[RunDir], None]) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    attempt = run.claim_attempt()
    with pytest.raises(RunError, match="no process of this run is running"):
        stop(run)
    debug_here(run)
    assert stop(run).startswith(f"{SECOND} saves a checkpoint after its current step and exits.\nTo resume it: ")
    assert stop(run).endswith(f"drumbeat resume {SECOND}")
    assert StopRequest.require(attempt.stop).reason == "stopped"
    write_state(run, "stopped")
    assert stop(run) == f"{SECOND} is stopped already"


@pytest.mark.parametrize("state", ["pending", "preempted"])
def test_a_run_in_the_queue_cannot_be_stopped(runs: Path, state: State) -> None:
    run = find_run("tiny", runs)
    run.claim_attempt()
    write_job(run, "slurm", id="4711")
    write_state(run, state)
    with pytest.raises(RunError, match=rf"drumbeat cancel\s+{SECOND}"):
        stop(run)
    assert not run.attempt(0).stop.exists()


@pytest.mark.parametrize("space", ["", "the boot and PID namespace of a container on this machine"])
def test_cancelling_a_run_on_this_machine(runs: Path, space: str) -> None:
    """All of its processes end, whatever signals they ignore, and nothing else does."""
    run = find_run("tiny", runs)
    write_state(run, "running")
    write_job(run, id="1", host=socket.gethostname(), space=space)
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    with (subprocess.Popen([sys.executable, "-c", ignoring, "drumbeat.trainers.worker", str(run.path), "0"]) as rank,
          subprocess.Popen([sys.executable, "-c", ignoring, "tensorboard", str(run.path)]) as unrelated):
        until(lambda: processes_of(View.read(run)))  # a moment after exec, /proc has no command line yet
        assert cancel(run).startswith(f"{SECOND} ended; there is no checkpoint. To resume it:\n")
        assert (rank.wait(), unrelated.poll()) == (-signal.SIGKILL, None)
        unrelated.kill()
    assert Status.require(run.status).state == "cancelled"
    assert cancel(run) == f"{SECOND} is cancelled already"


def test_stopping_a_run_that_is_about_to_start(runs: Path, debug_here: Callable[[RunDir], None],
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `resume --detach`, which names this command."""
    run = find_run("tiny", runs)
    debug_here(run)
    write_state(run, "pending")

    def begin(seconds: float) -> None:
        run.claim_attempt()
        write_state(run, "running")

    monkeypatch.setattr("drumbeat.launch.runs.stop.time.sleep", begin)
    assert stop(run).startswith(f"{SECOND} saves a checkpoint")
    assert StopRequest.require(run.attempt(0).stop).reason == "stopped"
