"""Progress: a bar on a terminal, and plain lines elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import drumbeat.data.bar
from drumbeat.configs.load import ROOT
from drumbeat.data.bar import Bar


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drumbeat.data.bar, "SECONDS", 0.0)
    with Bar() as bar:
        bar("decoding train", 1000, 3000)
        bar.advance("decoding train", 500, 3000)
    assert capsys.readouterr().err == "decoding train: 1,000 of 3,000\ndecoding train: 1,500 of 3,000\n"


def test_not_every_step_is_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("drumbeat.data.bar.time.monotonic", lambda: now[0])
    with Bar() as bar:
        for done in range(101):
            now[0] = done / 4
            bar("making stories", done, 100)
    assert capsys.readouterr().err == "making stories: 40 of 100\nmaking stories: 80 of 100\n"


def test_a_hidden_bar_prints_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drumbeat.data.bar, "SECONDS", 0.0)
    with Bar(shown=False) as bar:
        bar("evaluating test", 1, 2)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    program = "from drumbeat.data.bar import Bar\nwith Bar() as bar: bar('making stories', 30, 40)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, stderr=theirs, check=True,
                   env=os.environ | {"TERM": "xterm", "COLUMNS": "80"})
    os.close(theirs)
    shown = os.read(ours, 10000).decode()
    os.close(ours)
    assert "making stories" in shown
    assert "30/40" in shown
    assert "━" in shown


def test_making_data_in_a_pipe(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "drumbeat.data.demo.demo", "news", str(tmp_path / "news")], cwd=ROOT,
                          capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.startswith("2,400 synthetic stories written to ")
    assert done.stdout.endswith(f"\ntrain      drumbeat run lstm_news data.root={tmp_path / 'news'}\n")
