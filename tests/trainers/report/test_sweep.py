"""The page of a sweep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.run.records import Result
from drumbeat.configs.run.sweep import SweepDir
from drumbeat.trainers.report.report import main
from drumbeat.trainers.report.sweep import sweep_page
from tests.launch.sweeps.made import ID, made_sweep, write_trial

LR = "phases.head.optimizer.lr"


@pytest.fixture
def folder(tmp_path: Path) -> SweepDir:
    folder = made_sweep(tmp_path, {LR: "1e-3,3e-4", "seed": "0..1"}, asha=True, pruned=(2,))
    run = write_trial(folder, 1, "finished", best=0.25, step=100)
    Result(steps=100, samples_seen=1, overshoot=0, test={"accuracy": 0.875}).write(run.result)
    write_trial(folder, 0, "finished", best=0.5, step=100)
    write_trial(folder, 2, "stopped", best=0.75, step=12)
    return folder


def test_the_best_trial_comes_first(folder: SweepDir) -> None:
    text = sweep_page(folder)
    assert "<pre>drumbeat rerun s/0001</pre>" in text
    assert "<dt>test accuracy</dt><dd>0.875<small>trial 1</small>" in text
    assert f"<h3>loss by lr</h3><span>{LR}</span>" in text
    rows = [row for row in text.split("<tr>") if row.startswith("<td>")]
    assert [row.split("</td><td>")[0].removeprefix("<td>") for row in rows] == ["1", "0", "2", "3"]
    assert "<td>0002</td><td>pruned</td><td>12%</td><td>0.75</td>" in text
    assert "2 finished, 1 pruned, 1 waiting" in text


def test_a_sweep_without_any_run(tmp_path: Path) -> None:
    text = sweep_page(made_sweep(tmp_path, {"seed": "0..1"}))
    assert "2 waiting" in text and "Best trial" not in text


def test_a_damaged_trial(folder: SweepDir) -> None:
    folder.run(folder.read(), 0).status.write_text("{")
    assert "<td>damaged</td>" in sweep_page(folder)


def test_secrets_are_not_shown(folder: SweepDir) -> None:
    replace(folder.read(), typed="drumbeat sweep model.api_key=hunter2 a=b", changes=("model.api_key=hunter2", "a=b")
            ).write(folder.record)
    text = sweep_page(folder)
    assert "hunter2" not in text and "model.api_key=*** a=b" in text


def test_what_users_write_is_escaped(folder: SweepDir) -> None:
    replace(folder.read(), typed="drumbeat sweep <script>").write(folder.record)
    assert "&lt;script&gt;" in sweep_page(folder)


def test_the_command(folder: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(str(folder.path), str(tmp_path / "page.html")) == 0
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert ID in (tmp_path / "page.html").read_text()
    capsys.readouterr()
