"""Sweeps in `ls` and `status`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drumbeat.launch.commands.main import main
from tests.launch.sweeps.made import made_sweep, write_trial


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sweep_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_sweep(here / "runs", {"seed": "0..9"})
    write_trial(folder, 3, "finished", best=0.5, step=100)
    assert main(["ls"]) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert row.split() == ["sweep", "s", "waiting", "1/10", "10%", "loss", "0.5000"]
    assert main(["ls", "--json"]) == 0
    assert [run["id"] for run in json.loads(capsys.readouterr().out)] == [folder.run(folder.read(), 3).id]


def test_a_damaged_record_hides_no_trial(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_sweep(here / "runs", {"seed": "0..1"})
    run = write_trial(folder, 0, "finished")
    folder.record.write_text("{")
    assert main(["ls"]) == 0
    captured = capsys.readouterr()
    assert run.id in captured.out
    assert captured.err.startswith(f"damaged    {folder.record}: a file of the run cannot be read")


def test_status_as_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_trial(made_sweep(here / "runs", {"seed": "0..1"}), 1, "finished", best=0.5)
    assert main(["status", "s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["best"], [one["state"] for one in found["trials"]]) == (
        "waiting", 1, ["waiting", "finished"])


def test_a_trial_is_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_sweep(here / "runs", {"seed": "0..1"})
    write_trial(folder, 1, "finished")
    assert main(["status", "s/0001"]) == 0
    assert "state           finished" in capsys.readouterr().out
