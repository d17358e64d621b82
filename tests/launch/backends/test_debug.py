"""Runs with --debug, which train in the process of the command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Saved, Status
from drumbeat.launch.backends.debug import InProcess
from drumbeat.launch.plan.job import Machine
from drumbeat.launch.runs.find import find_run
from drumbeat.launch.runs.stop import cancel
from tests.launch.made import evidence
from tests.launch.tiny_plan import plan
from tests.processes import until
from tests.runs import write_job, write_state
from tests.tiny import latest, write_config


def test_a_debug_run_is_running_while_its_process_holds_its_folder(runs: Path, debug_here: Callable[[RunDir], None]
                                                                   ) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    write_job(run, "debug", host=socket.gethostname(), pid=os.getpid())
    assert evidence(run) == "", "its number was reused by this process"
    debug_here(run)
    assert evidence(run) == f"process {os.getpid()}"


def test_cancelling_a_run_in_debug_ends_no_other_process(runs: Path) -> None:
    """Neither one that has got the number of the run's process since, nor one that a forged job.json names."""
    run = find_run("tiny", runs)
    hold = "import os, sys; os.open(sys.argv[1], os.O_DIRECTORY); print(flush=True); sys.stdin.read()"
    for folder, ended in ((run.path, True), (runs, False)):
        with subprocess.Popen([sys.executable, "-c", hold, str(folder), "--debug"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as process:
            assert process.stdout and process.stdout.readline()
            write_job(run, "debug", host=socket.gethostname(), pid=process.pid)
            write_state(run, "running")
            cancel(run)
            if not ended:
                assert process.poll() is None
                process.kill()
            assert process.wait(10) == -signal.SIGKILL


def test_there_is_one_rank_whatever_the_config_asks_for(tmp_path: Path) -> None:
    assert InProcess().resources(Machine(cpus=8, gpus=("0", "1"))).one_rank
    made = plan(tmp_path, "launch.procs=4", backend="debug")
    assert made.topology.world_size == 1
    submitted = InProcess().submit(InProcess().request(made))
    assert (submitted.id, submitted.pid, submitted.running()) == (None, os.getpid(), False)
    assert submitted.work is not None, "which trains once everything is recorded"


@pytest.mark.slow
def test_a_termination_saves_and_stops(tmp_path: Path) -> None:
    write_config(tmp_path)
    with subprocess.Popen([sys.executable, "-m", "drumbeat", "run", "tiny.yaml", "--debug", "--no-preflight",
                           "phases.finetune.epochs=2000"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: any(tmp_path.glob("runs/tiny/latest/attempts/000/first_step.json")))
        process.terminate()
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    run = latest(tmp_path)
    assert (Status.require(run.status).state, Saved.require(run.attempt(0).saved).state) == ("stopped", "stopped")
