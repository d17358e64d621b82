"""Runs with --debug, which train in the process of the command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from drumbeat.configs.run.view import View
from drumbeat.launch.backends.debug import InProcess, in_debug
from drumbeat.launch.plan.job import Machine
from drumbeat.launch.runs.find import find_run
from drumbeat.launch.runs.stop import cancel
from tests.launch.made import evidence
from tests.launch.tiny_plan import plan
from tests.runs import write_job, write_state


def test_a_debug_run_is_running_while_its_process_exists(runs: Path) -> None:
    run = find_run("tiny", runs)
    write_state(run, "running")
    write_job(run, "debug", host=socket.gethostname(), pid=os.getpid())
    assert evidence(run) == f"process {os.getpid()}, in --debug"
    with subprocess.Popen(["true"]) as over:
        pass
    write_job(run, "debug", host=socket.gethostname(), pid=over.pid)
    assert evidence(run) == ""


def test_cancelling_a_run_in_debug_ends_no_other_process(runs: Path) -> None:
    """Which may have got the number of the run's process since."""
    run = find_run("tiny", runs)
    write_state(run, "running")
    for words, ended in ((["--debug"], True), ([], False)):
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words]) as process:
            write_job(run, "debug", host=socket.gethostname(), pid=process.pid)
            write_state(run, "running")
            cancel(View.read(run))
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


def test_only_a_process_with_the_flag_is_a_run_in_debug() -> None:
    program = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program, "x--debug"], stdin=subprocess.PIPE) as process:
        assert not in_debug(process.pid)
    assert not in_debug(process.pid), "it has ended"
