"""Which processes end with which others, and which signals reach them, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.launch.attempts.processes import (
    child_setup,
    descendants,
    end_descendants,
    has_living_threads,
    ignoring_signals,
)
from tests.processes import alive, until

FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A child, and the process id of a grandchild in a session of its own."""
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        grandchild = int(child.stdout.readline())
        yield child, grandchild
        child.kill()
    if alive(grandchild):
        os.kill(grandchild, signal.SIGKILL)


def test_descendants_of_any_session(family: tuple[subprocess.Popen[str], int]) -> None:
    child, grandchild = family
    assert descendants(child.pid) == [grandchild]
    assert {child.pid, grandchild} <= set(descendants(os.getpid()))
    os.kill(grandchild, signal.SIGKILL)
    until(lambda: not descendants(child.pid))  # a zombie does not count


ZOMBIE = """
import ctypes, platform, threading, time
libc = ctypes.CDLL(None)
stack = ctypes.create_string_buffer(65536)
vfork = lambda: libc.clone(libc.pause, ctypes.c_void_p(ctypes.addressof(stack) + 65536), 0x4000 | 17, None)
threading.Thread(target=lambda: {waits}).start()
libc.syscall({{"x86_64": 60, "aarch64": 93}}[platform.machine()], 0)
"""
"""A process whose main thread ends, by the system call exit, while another thread waits: like a rank that was killed
with a thread in the GPU's driver. (The parent of a vfork waits in the kernel until its child executes a program.)"""


@pytest.mark.parametrize(("waits", "state"), [("time.sleep(60)", "S"), ("vfork()", "D")])
def test_a_zombie_with_a_living_thread_has_not_ended(waits: str, state: str) -> None:
    """It still holds its GPU and files, so it is waited for, and reported if no signal ends it."""
    code = f"""
import os, pathlib, subprocess, sys, time
from drumbeat.launch.attempts.processes import descendants, end_descendants
child = subprocess.Popen([sys.executable, "-c", {ZOMBIE.format(waits=waits)!r}])
threads = pathlib.Path(f"/proc/{{child.pid}}/task")
while {{stat.read_text().split()[2] for stat in threads.glob("*/stat")}} != {{"Z", {state!r}}}:
    time.sleep(0.01)
assert child.pid in descendants(os.getpid()), "left out"
kill, os.kill = os.kill, lambda process, number: None
assert child.pid in end_descendants(within=0.1), "not reported"
os.kill = kill
assert end_descendants() == []
assert not threads.exists(), "not reaped"
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)


def test_orphans_are_ended_as_well() -> None:
    """When a child is killed, its children become the launcher's, which is their subreaper."""
    code = f"""
import os, signal, subprocess, sys
from drumbeat.launch.attempts.processes import become_subreaper, descendants, end_descendants
become_subreaper()
child = subprocess.Popen([sys.executable, "-c", {FAMILY!r}], stdout=subprocess.PIPE)
orphan = int(child.stdout.readline())
child.kill()
child.wait()
assert descendants(os.getpid()) == [orphan], "not ours"
assert end_descendants() == []
assert not os.path.exists(f"/proc/{{orphan}}"), "not reaped"
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)


def test_parents_are_killed_before_their_children() -> None:
    """A torchrun that saw us kill its rank would report that rank as the one that failed."""
    code = """
import os, subprocess, sys
from drumbeat.launch.attempts.processes import descendants, end_descendants

def family():  # whose numbers a set would reorder
    while True:
        line = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.stdin.read()"
        parent = subprocess.Popen([sys.executable, "-I", "-S", "-c", line], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        child = int(parent.stdout.readline())
        if list({parent.pid, child})[0] == child:
            return parent.pid, child
        end_descendants()
        subprocess.run(["true"])  # three numbers each time: with two, an even one would never be the eighth

parent, child = family()
killed, kill = [], os.kill
os.kill = lambda process, number: (killed.append(process), kill(process, number))
assert end_descendants() == []
print(killed[:2] == [parent, child])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr


def test_a_process_without_children_has_nothing_to_end() -> None:
    began = time.monotonic()
    assert end_descendants(within=5.0) == []
    assert time.monotonic() - began < 1.0


def test_a_child_ends_with_its_parent() -> None:
    code = """
import os, subprocess, sys
from drumbeat.launch.attempts.processes import child_setup
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=child_setup(),
                         start_new_session=True)
print(child.pid, flush=True)
sys.stdin.readline()
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    until(lambda: not alive(child), seconds=5)


def test_a_blocked_signal_reaches_no_handler(tmp_path: Path) -> None:
    """Nor a program that the child starts. The parent receives signals as before."""
    handler = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: 1 / 0); print(flush=True); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {handler!r}])"
    before = signal.getsignal(signal.SIGTERM)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          preexec_fn=child_setup(signal.SIGTERM)) as child:
        assert child.stdout
        child.stdout.readline()
        grandchild, = descendants(child.pid)
        for process in (child.pid, grandchild):
            os.kill(process, signal.SIGTERM)
        time.sleep(0.3)  # a signal takes microseconds
        assert alive(child.pid)
        assert alive(grandchild)
        os.kill(grandchild, signal.SIGKILL)
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_signals_are_ignored_inside_the_context() -> None:
    before = signal.getsignal(signal.SIGINT)
    with ignoring_signals(signal.SIGINT, signal.SIGHUP):
        os.kill(os.getpid(), signal.SIGHUP)
        code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
        output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "True"
    assert signal.getsignal(signal.SIGINT) == before


def test_processes_that_are_reaped_while_they_are_looked_at() -> None:
    """By another thread here, by another process in a run."""
    for _ in range(60):
        process = subprocess.Popen(["true"])
        entry = Path(f"/proc/{process.pid}")
        reaper = threading.Thread(target=process.wait)
        reaper.start()
        while entry.exists():
            has_living_threads(entry)
        reaper.join()
        assert not has_living_threads(entry)
