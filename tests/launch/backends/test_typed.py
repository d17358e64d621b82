"""What a person types to name a run and to call a program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from drumbeat.launch.backends.typed import command, handle, program
from drumbeat.launch.runs.find import find_run
from tests.launch.made import SECOND


def test_what_to_type_for_a_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = find_run("tiny", runs)
    assert handle(run) == SECOND
    monkeypatch.chdir(runs)
    assert handle(run) == f"tiny/{SECOND}"
    assert find_run(handle(run), Path("runs")) == run
    monkeypatch.chdir("/")
    assert find_run(handle(run), Path("runs")) == run


def test_how_to_call_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    beside = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(beside))
    assert program("drumbeat") == "drumbeat"
    monkeypatch.setenv("PATH", "/nowhere")
    assert program("drumbeat").endswith("/drumbeat")
    assert program("unheard-of") == "unheard-of"


def test_a_command_is_ready_to_be_typed_in_the_current_folder(runs: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    run = find_run("tiny", runs)
    for folder in (runs, tmp_path):
        monkeypatch.chdir(folder)
        words = command("stop", run).split()
        assert words[0].rpartition("/")[2] == "drumbeat"
        assert words[1] == "stop"
        assert find_run(words[2], Path("runs")) == run
