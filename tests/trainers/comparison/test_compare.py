"""The command, from the runs' names to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.commands import main as commands
from drumbeat.trainers.comparison import compare as program
from tests.runs import write_state
from tests.trainers.comparison.made import made_run, samples, write_evaluation


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    monkeypatch.chdir(tmp_path)
    found = [made_run(tmp_path, 1), made_run(tmp_path, 2, "model.width=4")]
    for number, run in enumerate(found):
        write_evaluation(run, samples(skill=number))
    return found


def test_it_prints_and_writes(runs: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(run.path) for run in runs]
    assert program.main(folders) == 0
    shown = capsys.readouterr().out
    assert "test set, 40 samples" in shown and shown.splitlines()[-1].startswith("report    comparison.html (")
    assert Path("comparison.html").is_file()
    assert program.main([*folders, "--json", "--split", "test"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"]["samples"] == 40
    assert program.main([*folders, "--split", "validation"]) == 2
    assert program.main([*folders, "--out", "missing/page.html"]) == 2
    assert "name another file with --out" in capsys.readouterr().err


def test_mistakes_are_one_screen(runs: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (([runs[0].id, "tiny/" + runs[0].id], "a comparison needs two runs"),
                           ([runs[0].id, runs[1].id, "--group", "person"], "one group in parentheses"),
                           ([runs[0].id, "missing"], "there is no run 'missing'")):
        assert commands.main(["compare", *words]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_a_run_that_goes_on_is_not_compared(runs: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    write_state(runs[1], "running")
    assert commands.main(["compare", runs[0].id, runs[1].id]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"run {runs[1].id} has not ended" in error and "state: running" in error
