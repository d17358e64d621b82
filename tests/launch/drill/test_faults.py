"""The faults of a drill: which there are, when they are injected, and when they cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import checkpoint_path
from drumbeat.launch.commands.drill import TYPES
from drumbeat.launch.drill import faults
from drumbeat.launch.drill.faults import FAULTS, NotInjectedError, poll, processes
from tests.runs import write_job, write_plan, write_state


def test_the_command_names_all_types() -> None:
    assert tuple(FAULTS) == TYPES


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose files say that it is running, but it has no processes."""
    run = RunDir(tmp_path / "run")
    write_plan(run)
    write_state(run, "running")
    return run


def test_the_moment_of_a_fault_is_waited_for_until_the_run_ends(run: RunDir) -> None:
    answers = iter([0, 0, 7, 8])

    def check() -> int:
        found = next(answers)
        if found == 8:
            write_state(run, "finished")
        return found

    assert list(poll(run, check, pause=0)) == [7, 8]
    assert list(poll(run, lambda: 9, pause=0)) == []


def test_the_wait_for_the_moment_of_a_fault_is_limited(run: RunDir) -> None:
    assert list(poll(run, lambda: 0, pause=0, timeout=0.01)) == []


@pytest.mark.parametrize(("name", "reason"), [
    ("rank", "no process 'rank' is running"), ("loader", "no process 'pt_data_worker' is running"),
    ("launcher", "no process 'launcher' is running"), ("writer", "no checkpoint was written before the run ended"),
    ("checkpoint", "before it had two checkpoints"), ("disk", "the run saved no checkpoint before it ended"),
])
def test_a_fault_of_a_run_that_has_ended_is_not_injected(run: RunDir, name: str, reason: str) -> None:
    write_state(run, "finished")
    with pytest.raises(NotInjectedError, match=reason):
        FAULTS[name].inject(run, Random(0))


def save(run: RunDir, step: int, *, complete: bool = True) -> Path:
    """A checkpoint whose weights are 64 zeros."""
    path = checkpoint_path(run, step)
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(bytes(64))
    if complete:
        (path / "manifest.json").touch()
    return path / "model.safetensors"


def test_one_bit_of_the_newest_complete_checkpoint_is_flipped(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no rank to kill afterwards."""
    monkeypatch.setattr(faults, "PROCESS_TIMEOUT", 0.0)
    older, newest, unfinished = save(run, 6), save(run, 9), save(run, 12, complete=False)
    with pytest.raises(NotInjectedError, match="no process 'rank' is running"):
        FAULTS["checkpoint"].inject(run, Random(3))
    assert (older.read_bytes(), unfinished.read_bytes()) == (bytes(64), bytes(64))
    assert sum(byte.bit_count() for byte in newest.read_bytes()) == 1
    assert len(newest.read_bytes()) == 64


def test_a_process_is_found_by_its_name_and_killed(run: RunDir) -> None:
    """It calls itself rank3; the process of this test is the controller of the run."""
    write_job(run, id=str(os.getpid()))
    program = ("import time\nfrom drumbeat.configs.run.processes import call_process\n"
               "call_process('rank3')\nprint('ready', flush=True)\ntime.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as rank:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "ready\n"
        assert processes(run)["rank"] == [rank.pid]
        FAULTS["rank"].inject(run, Random(0))
        assert rank.wait(10) == -signal.SIGKILL
