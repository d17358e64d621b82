"""`ls --watch`: a table that fits, is renewed until Ctrl-C, and asks SLURM seldom."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.watch import SLURM_SECONDS, Watched
from tests.launch.fake_slurm import programs
from tests.runs import write_heartbeat, write_job, write_plan, write_state

WATCH = [sys.executable, "-m", "drumbeat", "ls", "--watch"]


def test_the_newest_runs_that_fit_a_screen(listed: list[RunDir], tmp_path: Path) -> None:
    lines = [text.plain for text in Watched(Path("runs")).lines(80, 5)]
    assert len(lines) == 5
    assert [line.split()[0] for line in lines] == ["run", "ddddd", "ccccc", "bbbbb", "4"]
    assert lines[-1] == "4 runs in runs, 1 older not shown; Ctrl-C ends this"
    assert max(map(len, lines)) <= 80
    assert [text.plain for text in Watched(tmp_path / "none").lines(20, 5)] == [f"0 runs in {tmp_path}"[:20]]


def test_a_sweep_is_a_row_and_its_trials_are_left_out(listed: list[RunDir]) -> None:
    row = ("mine", "", "2 of 9", "local", "22%", "", "", "", "", "")
    watched = Watched(Path("runs"), lambda: ({"20260103-110000-sweep": row}, {listed[0].path}))
    lines = [text.plain for text in watched.lines(100, 9)]
    assert [line.split()[0] for line in lines] == ["run", "ddddd", "mine", "ccccc", "bbbbb", "3"]
    assert lines[-1] == "3 runs and 1 sweep in runs; Ctrl-C ends this"


def test_a_damaged_run_is_a_row(listed: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    listed[1].status.write_text("[1]")
    lines = [text.plain for text in Watched(Path("runs")).lines(80, 9)]
    assert re.match("bbbbb +tiny +damaged", lines[3])
    assert capsys.readouterr() == ("", "")


def test_slurm_is_asked_seldom_and_folders_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path / "runs" / "tiny" / "20260101-100000-aaaaa")
    write_plan(run, backend="slurm")
    write_job(run, "slurm", id="4711", host="login")
    write_state(run, "pending")
    other = RunDir(run.path.with_name("20260102-100000-bbbbb"))
    write_plan(other)
    write_state(other, "stopped")
    asked = tmp_path / "asked"
    monkeypatch.setenv("PATH", programs(tmp_path, squeue=f"echo $@ >> {asked}; echo '4711|PENDING'", sacct="exit 1"))
    watched, clock = Watched(tmp_path / "runs"), [1000.0]
    monkeypatch.setattr("drumbeat.launch.runs.watch.time.monotonic", lambda: clock[0])

    def states() -> list[str]:
        return [text.plain.split()[2] for text in watched.lines(100, 9)][1:3]

    assert states() == ["stopped", "pending"]
    questions = len(asked.read_text().splitlines())
    assert questions
    write_state(other, "failed")
    for clock[0] in (1002.0, 1000.0 + SLURM_SECONDS - 0.1):
        assert states() == ["failed", "pending"]
    assert len(asked.read_text().splitlines()) == questions
    write_state(run, "running")
    write_heartbeat(run, step=1, steps=4)
    assert states() == ["failed", "running"], "its folder says so"
    write_state(run, "pending")
    clock[0] = 1000.0 + SLURM_SECONDS
    states()
    assert len(asked.read_text().splitlines()) > questions


def test_it_is_renewed_until_ctrl_c(listed: list[RunDir]) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 80, 0, 0))
    process = subprocess.Popen(WATCH, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    seen = b""

    def wait_for(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            seen += os.read(ours, 100_000)
        seen = b""

    wait_for(b"Ctrl-C ends this")
    write_state(listed[1], "cancelled")
    wait_for(b"cancelled")
    process.send_signal(signal.SIGINT)
    wait_for(b"interrupted")
    assert process.wait() == 130
    os.close(ours)


@pytest.mark.parametrize(("options", "what"), [
    ([], "--watch needs a terminal"), (["--json"], "--watch and --json are mutually exclusive"),
    (["--all"], "--watch and --all are mutually exclusive")])
def test_what_it_cannot_do(listed: list[RunDir], capsys: pytest.CaptureFixture[str], options: list[str], what: str
                           ) -> None:
    assert main(["ls", "--watch", *options]) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.splitlines()[0]) == ("", f"error: {what}")
