"""MLflow's real store: SQLite, through its own client."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.trackers.mlflow import MLflow
from tests.trainers.trackers.made import CURVES, write_run


@pytest.mark.slow
def test_after_ten_kills_each_step_is_there_once(run: RunDir, sent_while_killed: Callable[..., None]) -> None:
    write_run(run, "mlflow")
    sent_while_killed("mlflow", MLFLOW_TRACKING_URI="")
    store = run.all_runs / ".mlflow"
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        ((mlflow_id, status, pictures),) = database.execute("SELECT run_uuid, status, artifact_uri FROM runs")
        points = database.execute("SELECT key, step, value FROM metrics ORDER BY step").fetchall()
        tags = dict(database.execute("SELECT key, value FROM tags").fetchall())
        params = dict(database.execute("SELECT key, value FROM params").fetchall())
    assert {tag: [step for key, step, _ in points if key == tag] for tag in CURVES} == CURVES
    assert {key for key, _, _ in points} == {*CURVES}
    assert all(math.isclose(value, 1 / step, rel_tol=1e-6) for key, step, value in points if key == "train/loss")
    folder = store / "artifacts" / mlflow_id / "artifacts" / "pictures" / "train" / "images"
    assert pictures == (store / "artifacts" / mlflow_id / "artifacts").as_uri()
    assert sorted(file.name for file in folder.iterdir()) == [f"step-{step:08d}.png" for step in (12, 24, 36, 48, 60)]
    assert status == "FINISHED"
    assert (tags["drumbeat.run"], tags["drumbeat.folder"], tags["drumbeat.verdict"]) == (
        run.id, str(run.path), "finished at step 60")
    assert (params["batch_size"], params["phases.train.optimizer.lr"], params["model.api_key"]) == ("4", "0.5", "***")
    assert not [file for file in run.trackers.iterdir() if "1234567" in file.read_text()]


def test_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert MLflow().uri == "http://tracker:5000"
    assert MLflow(uri="sqlite:///x.db").uri == "sqlite:///x.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert MLflow().uri == ""
