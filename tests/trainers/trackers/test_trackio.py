"""trackio's real store: its local database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from tests.trainers.trackers.made import CURVES, write_run


@pytest.mark.slow
def test_after_ten_kills_each_step_is_there_once(run: RunDir, sent_while_killed: Callable[..., None],
                                                 tmp_path: Path) -> None:
    write_run(run, "trackio")
    sent_while_killed("trackio", TRACKIO_DIR=str(tmp_path / "trackio"))
    (database,) = (tmp_path / "trackio").glob("*.db")
    with closing(sqlite3.connect(database)) as store:
        rows = store.execute("SELECT run_id, step, metrics FROM metrics ORDER BY id").fetchall()
        ((config,),) = store.execute("SELECT config FROM configs").fetchall()
    assert {name for name, _, _ in rows} == {run.id}
    points = [(step, json.loads(values)) for _, step, values in rows]
    assert {tag: [step for step, values in points if tag in values] for tag in CURVES} == CURVES
    pictures = [(step, values["train/images"]) for step, values in points if "train/images" in values]
    assert [step for step, _ in pictures] == [12, 24, 36, 48, 60]
    assert all((tmp_path / "trackio" / "media" / picture["file_path"]).is_file() for _, picture in pictures)
    values = json.loads(config)
    assert (values["batch_size"], values["model.api_key"], values["drumbeat_state"]) == ("4", "***", "finished")
