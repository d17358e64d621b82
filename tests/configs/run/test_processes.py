"""Processes that end with their parent, and names of processes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from drumbeat.configs.run.processes import call_process, node_name


@pytest.mark.parametrize(("given", "shown"), [("rank3", "rank3"), ("a_name_that_is_long", "a_name_that_is_")])
def test_the_name_that_ps_shows_has_at_most_15_characters(given: str, shown: str) -> None:
    """In a thread of its own, which has a name of its own, so that this process keeps its name."""
    found = []

    def name_it() -> None:
        call_process(given)
        found.append(Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().strip())

    thread = threading.Thread(target=name_it)
    thread.start()
    thread.join()
    assert found == [shown]


def test_a_process_whose_parent_has_already_ended_ends_at_once() -> None:
    """Process 0 is the parent of none that can be asked."""
    program = ("import signal\nfrom drumbeat.configs.run.processes import die_with_parent\n"
               "die_with_parent(0, signal.SIGUSR1)")
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGUSR1


def test_a_process_gets_the_signal_when_its_parent_ends() -> None:
    """It tells its parent's parent of it, over the pipe that both have inherited."""
    child = ("import os, signal, sys, time\nfrom drumbeat.configs.run.processes import die_with_parent\n"
             "signal.signal(signal.SIGUSR1, lambda *_: (print('got it', flush=True), os._exit(0)))\n"
             "die_with_parent(int(sys.argv[1]), signal.SIGUSR1)\nprint('ready', flush=True)\ntime.sleep(60)")
    parent = (f"import os, subprocess, sys\nchild = {child!r}\n"
              "subprocess.Popen([sys.executable, '-c', child, str(os.getpid())])\nsys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.stdout.readline() == "got it\n"


def test_slurms_name_of_the_node_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    assert node_name() == socket.gethostname()
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    assert node_name() == "n7"
