"""trackio: a database on this machine that `trackio show` shows."""

from __future__ import annotations

import io
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from drumbeat.configs.run.records import State
from drumbeat.trainers.trackers.tracker import Row, RunInfo, Tracker


class Trackio(Tracker):
    """Runs of one project, in trackio's database: in TRACKIO_DIR, by default in the home folder. Each row has an id
    that follows from the run and the row's number, and trackio keeps one row of an id: a row that is sent again changes
    nothing. `trackio sync` copies the project to a Space."""

    package = "trackio"

    def __init__(self, *, project: str = "") -> None:
        """`project` is '' for the name of the run's experiment."""
        self.project = project
        self.run: RunInfo
        self.count = 0
        """How many rows trackio has."""

    def start(self, run: RunInfo) -> None:
        from trackio.sqlite_storage import SQLiteStorage

        self.run, self.project = run, self.project or run.name
        self.count = SQLiteStorage.get_log_count(self.project, run_id=run.id) if (
            SQLiteStorage.get_project_db_path(self.project).exists()) else 0

    def points(self, rows: Sequence[Row]) -> None:
        self._log([(row, dict(row.values)) for row in rows if row.number >= self.count])

    def picture(self, row: Row) -> None:
        if row.number < self.count:
            return
        from PIL import Image
        from trackio import Image as Picture

        pictures = {tag: Picture(Image.open(io.BytesIO(data))) for tag, data in row.pictures.items()}
        for picture in pictures.values():
            picture._save(self.project, self.run.id, row.step)
        self._log([(row, {tag: picture._to_dict() for tag, picture in pictures.items()})])

    def end(self, state: State, verdict: str) -> None:
        """trackio has no states: they become values of the run's config, sent with the first row, which it has."""
        if self.count:
            first = Row(number=0, step=0, time=0.0)
            self._log([(first, {})], {"drumbeat_state": state, "drumbeat_verdict": verdict})

    def _log(self, rows: Sequence[tuple[Row, dict[str, Any]]], more: Mapping[str, str] | None = None) -> None:
        """Writes rows, of which trackio keeps those that it does not have, and the config if there is `more` of it, or
        nothing yet."""
        from trackio.sqlite_storage import SQLiteStorage

        if rows:
            config = {**self.run.config, **self.run.links, **(more or {})} if more or not self.count else None
            SQLiteStorage.bulk_log(
                self.project, self.run.id, [values for _, values in rows], steps=[row.step for row, _ in rows],
                timestamps=[datetime.fromtimestamp(row.time, UTC).isoformat() for row, _ in rows],
                config=config, run_id=self.run.id,
                log_ids=[uuid.uuid5(uuid.NAMESPACE_OID, f"{self.run.id} {row.number}").hex for row, _ in rows])
            self.count = max(self.count, rows[-1][0].number + 1)
