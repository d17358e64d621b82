"""The attached view: what a terminal and a pipe show, what Ctrl-C does, and that a run outlives its terminal.

torchrun is a fake (tests/launch/fake_torchrun.py); controller and node launcher are real.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from drumbeat.configs import importing
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import RankError, Result, Saved, Status
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.contract import Submitted
from drumbeat.launch.backends.processes import LAUNCHERS, processes_of
from drumbeat.launch.runs.attach import print_commands, print_end, print_header
from drumbeat.launch.start.describe import summary
from tests.launch import fake_torchrun
from tests.processes import alive, until
from tests.runs import write_heartbeat, write_plan, write_state

pytestmark = pytest.mark.slow

LINE = "head  step 9/42  loss 0.5500  lr 1.0e-02  1,234/s  1:15 left"
"""As rank 0 prints it at intervals (`trainers/training_log.py`)."""
ID = "20260101-100000-aaaaa"

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "true"]
"""A command in a PID namespace, as in a container."""

FOLLOW = """
import sys
from pathlib import Path
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.runs import attach as watch
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.contract import Request
from drumbeat.launch.backends.local import Local
from drumbeat.configs.run.view import View
run = RunDir(Path(sys.argv[1]))
view = View.read(run)
job = Local().submit(Request(plan=view.plan, text=""))
if sys.argv[2] == "follow":
    with watch.terminations() as received:
        sys.exit(watch.follow(view, job, view.attempt, received))
watch.print_commands(run, job, backend_of("local"))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDir]:
    """A planned run with a fake torchrun. Its remaining processes are killed after the test."""
    monkeypatch.chdir(tmp_path)
    run = RunDir(tmp_path / "runs" / "tiny" / ID)
    (run.path / "fake").mkdir(parents=True)
    write_plan(run, restarts=1, environment=importing.environment(str(ROOT), []), folder=str(tmp_path),
               python=fake_torchrun.install(tmp_path))
    write_state(run, "pending")
    yield run
    for process in processes_of(View.read(run)):
        os.kill(process, signal.SIGKILL)
    for terminal in Terminal.opened:
        terminal.process.kill()
        terminal.process.wait()
    Terminal.opened.clear()


class Terminal:
    """A terminal of 80 columns with the attached view in it, as a shell would start it."""

    opened: ClassVar[list[Terminal]] = []

    def __init__(self, run: RunDir) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", FOLLOW, str(run.path), "follow"], stdin=slave, stdout=slave, stderr=slave,
            env=os.environ | {"TERM": "xterm"}, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.shown = ""
        self.opened.append(self)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def close(self) -> None:
        """The window is closed: the kernel sends SIGHUP."""
        os.close(self.master)

    def shows(self, text: str) -> bool:
        """Whether the screen has shown this text, without colours and cursor movements."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(self.master, 65536).decode())
            except OSError:  # the other side has closed it
                break
        return text in self.shown

    def end(self) -> int:
        until(lambda: self.shows("\0") or self.process.poll() is not None)
        self.shows("")
        return self.process.wait()


def up(run: RunDir, attempt: int = 0) -> None:
    until(lambda: {"rank0", "rank1"} <= fake_torchrun.pids(run.path, attempt).keys())


def test_log_progress_and_result(run: RunDir) -> None:
    terminal = Terminal(run)
    up(run)
    run.attempt(0).log(0).write_text(f"{LINE}\nhead  step 9  [validation]\n[rank0]:[W1122] a warning of torch's\n")
    write_heartbeat(run, phase="head", step=9, steps=42, loss=0.55, samples_per_second=1234.5, eta_seconds=75.0)
    until(lambda: terminal.shows("step 9/42  loss 0.5500  1,234/s  1:15 left"))
    Result(steps=42, samples_seen=454, overshoot=4, best={"step": 37, "phase": "head", "accuracy": 0.9}).write(
        run.result)
    (run.path / "fake" / "finish").touch()
    assert terminal.end() == 0
    assert terminal.shows("           Ctrl-C saves a checkpoint and stops; closing this terminal leaves the\r\n"
                          "           run running")
    for line in (LINE, "head  step 9  [validation]"):
        assert terminal.shows(f"{line}\r\n"), "above the bar, which is drawn again below it"
    assert terminal.shows("finished   42 steps, 454 samples (4 past the end of an epoch, in its last batch)\r\n"
                          "best       accuracy 0.9000 (step 37, head)\r\n")
    assert terminal.shows(f"drumbeat evaluate {ID} --split validation\r\n")
    assert not terminal.shows("a warning of torch's")


def test_the_first_ctrl_c_saves_and_stops(run: RunDir) -> None:
    terminal = Terminal(run)
    up(run)
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert terminal.shows("stopping: the run saves a checkpoint after this step and exits. To resume it:")
    assert terminal.shows(f"drumbeat resume {ID}\r\nCtrl-C again kills it at once.")
    assert terminal.shows("stopped    at step 1")
    assert Saved.require(run.attempt(0).saved) == Saved(state="stopped", step=1)
    assert (Status.require(run.status).state, processes_of(View.read(run))) == ("stopped", [])


def test_a_termination_saves_and_stops(run: RunDir) -> None:
    """Of the command alone, as in a container. More of them change nothing: the run is saved, not killed."""
    terminal = Terminal(run)
    up(run)
    terminal.process.terminate()
    until(lambda: terminal.shows("stopping: the run saves a checkpoint"))
    terminal.process.terminate()
    assert terminal.end() == 130
    assert terminal.shows("stopped    at step 1")
    assert Saved.require(run.attempt(0).saved) == Saved(state="stopped", step=1)
    assert (Status.require(run.status).state, processes_of(View.read(run))) == ("stopped", [])


@pytest.mark.skipif(subprocess.run(UNSHARE, check=False, capture_output=True).returncode != 0,
                    reason="this user cannot make PID namespaces")
def test_process_1_of_a_container_saves_and_stops(run: RunDir) -> None:
    """The kernel delivers to process 1 only the signals that it handles."""
    outside = subprocess.Popen([*UNSHARE[:-1], sys.executable, "-c", FOLLOW, str(run.path), "follow"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    up(run)
    (first,) = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()
    os.kill(int(first), signal.SIGTERM)
    output, _ = outside.communicate(timeout=60)
    assert (outside.returncode, "stopped    at step 1" in output) == (130, True), output
    assert Saved.require(run.attempt(0).saved) == Saved(state="stopped", step=1)


def test_ctrl_c_before_the_first_attempt_is_not_lost(run: RunDir) -> None:
    terminal = Terminal(run)
    until(lambda: terminal.shows("Ctrl-C saves a checkpoint and stops"))
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert Status.require(run.status).state == "stopped"


def test_the_second_ctrl_c_ends_it_at_once(run: RunDir) -> None:
    terminal = Terminal(run)
    up(run)
    processes = fake_torchrun.pids(run.path, 0).values()
    for process in processes:
        os.kill(process, signal.SIGSTOP)  # so that they cannot save
    terminal.type(b"\x03")
    until(lambda: terminal.shows("Ctrl-C again kills it at once."))
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert terminal.shows("cancelled  from the terminal, without a checkpoint")
    assert Status.require(run.status).state == "cancelled"
    assert processes_of(View.read(run)) == []
    assert not [process for process in processes if alive(process)]


def test_a_run_outlives_its_terminal(run: RunDir) -> None:
    terminal = Terminal(run)
    up(run)
    terminal.close()
    assert terminal.process.wait() == -signal.SIGHUP
    time.sleep(0.3)
    assert fake_torchrun.received_signals(run.path) == {}
    assert Status.require(run.status).state == "running"
    (run.path / "fake" / "finish").touch()
    until(lambda: Status.require(run.status).state == "finished" and not processes_of(View.read(run)))


def test_a_run_receives_no_signal_of_the_terminal(run: RunDir) -> None:
    terminal = Terminal(run)
    up(run)
    launchers = processes_of(View.read(run), LAUNCHERS)
    assert len(launchers) == 2
    for process in launchers:
        ignored = int(re.findall(r"SigIgn:\s*(\w+)", Path(f"/proc/{process}/status").read_text())[0], 16)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
            assert ignored >> (number - 1) & 1, (process, number)
    (run.path / "fake" / "finish").touch()
    assert terminal.end() == 0


def test_a_failed_run_in_a_pipe_ends_with_cause_log_and_exit_code_1(run: RunDir) -> None:
    (run.path / "fake" / "fail1").write_text("the test failed")
    done = subprocess.run([sys.executable, "-c", FOLLOW, str(run.path), "follow"], capture_output=True, text=True,
                          env=os.environ, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "restarting: rank 1 on here failed at step 3: ValueError: the test failed" in done.stdout
    *verdict, log, resume = done.stdout.partition("\n\n")[2].splitlines()
    assert verdict[0].startswith("failed     rank 1 on here failed at step 3: ValueError: the test failed;")
    assert all(line.startswith(" " * 11) and len(line) <= 80 for line in verdict[1:])
    assert log.startswith(f"log        runs/tiny/{ID}/attempts/001/")
    assert resume.endswith(f"drumbeat resume {ID}")


def test_a_killed_launcher_leaves_no_rank_and_is_reported(run: RunDir) -> None:
    with subprocess.Popen([sys.executable, "-c", FOLLOW, str(run.path), "follow"], stdout=subprocess.PIPE, text=True,
                          env=os.environ) as view:
        up(run)
        for process in processes_of(View.read(run), {b"submitit.core._submit"}):
            os.kill(process, signal.SIGKILL)
        assert view.stdout is not None
        assert "failed     its launcher was killed, or its machine failed; there is no" in view.stdout.read()
    assert view.returncode == 1
    assert Status.require(run.status).state == "failed"
    assert processes_of(View.read(run)) == []


def test_a_resumed_run_does_not_show_the_attempt_before(run: RunDir) -> None:
    run.claim_attempt().log(0).write_text("long ago\n")
    (run.path / "fake" / "finish").touch()
    done = subprocess.run([sys.executable, "-c", FOLLOW, str(run.path), "follow"], capture_output=True, text=True,
                          env=os.environ, check=False)
    assert done.returncode == 0
    assert "long ago" not in done.stdout
    assert "restarting" not in done.stdout


def test_a_detached_run_holds_no_pipe_of_the_launcher(run: RunDir) -> None:
    done = subprocess.run([sys.executable, "-c", FOLLOW, str(run.path), "detach"], capture_output=True, text=True,
                          env=os.environ, timeout=20, check=False)
    assert done.returncode == 0
    assert re.match(r"process    \d+\n\n.*drumbeat status 2026", done.stdout)
    up(run)
    (run.path / "fake" / "finish").touch()
    until(lambda: not processes_of(View.read(run)))


def test_the_lines_before_and_after(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    print_header(run, summary(JobPlan.require(run.plan)))
    print_commands(run, Submitted(id="4711"), backend_of("slurm"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [f"run        tiny/{ID}: 2 ranks on the CPU, on this machine", f"folder     runs/tiny/{ID}",
                         "SLURM job  4711", ""]


def test_a_failure_names_the_line_and_the_log(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    attempt = run.claim_attempt()
    attempt.log(1).write_text("Traceback ...\n")
    frames = [("/site-packages/torch/x.py", 3, "step"), (f"{run.path}/my_loss.py", 12, "forward"),
              ("/site-packages/torch/y.py", 9, "z")]
    traceback = "\n".join(f'  File "{file}", line {line}, in {name}' for file, line, name in frames)
    RankError(rank=1, node="n1", type="ValueError", message="no", step=3, traceback=traceback).write(attempt.error(1))
    write_state(run, "failed", "rank 1 on n1 failed at step 3: ValueError: no")
    assert print_end(View.read(run)) == 1
    assert capsys.readouterr().out.splitlines()[:3] == [
        "failed     rank 1 on n1 failed at step 3: ValueError: no",
        f"at         runs/tiny/{ID}/my_loss.py:12, in forward",
        f"log        runs/tiny/{ID}/attempts/000/rank1.log"]
