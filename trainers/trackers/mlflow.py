"""MLflow: a server, or a database beside the runs that `mlflow ui` shows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from tempfile import TemporaryDirectory
from typing import Any

from drumbeat.configs.run.records import State
from drumbeat.trainers.trackers.tracker import Row, RunInfo, Tracker

AT_ONCE = 1000
"""MLflow's limits for one request: this many metrics, and a hundred parameters and tags."""
PARAMETERS_AT_ONCE = 100
LONGEST = 6000
"""Characters of a parameter's value."""
STORE = ".mlflow"
"""The folder of the default store, in that of all runs. Its database is one file, which all runs write to."""
RUN_TAG = "drumbeat.run"
STATES = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "cancelled": "KILLED",
          "pending": "SCHEDULED", "preempted": "SCHEDULED"}


class MLflow(Tracker):
    """Runs of one experiment, found again by a tag. MLflow knows the steps of each curve, so a point that it has is not
    sent again."""

    package = "mlflow"

    def __init__(self, *, uri: str = "", experiment: str = "") -> None:
        """`uri` is the tracking server or store; '' for that of MLFLOW_TRACKING_URI, or else the database
        .mlflow/mlflow.db in the folder of all runs. `experiment` is '' for the name of the run's experiment."""
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        self.experiment = experiment
        self.client: Any = None
        self.id = ""
        self.steps: dict[str, int] = {}
        """The last step of each curve that MLflow has."""

    def start(self, run: RunInfo) -> None:
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        local: dict[str, str] = {}
        if not self.uri:
            store = run.runs.absolute() / STORE
            store.mkdir(exist_ok=True)
            self.uri, local = f"sqlite:///{store / 'mlflow.db'}", {"artifact_location": (store / "artifacts").as_uri()}
        self.client = MlflowClient(tracking_uri=self.uri)
        name = self.experiment or run.name
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name, **local)
        found = self.client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run.id}'", max_results=1)
        if found:
            self.id = found[0].info.run_id
        else:
            tags = {RUN_TAG: run.id, **{f"drumbeat.{name}": text for name, text in run.links.items()}}
            self.id = self.client.create_run(experiment, tags=tags, run_name=run.id).info.run_id
        self.client.update_run(self.id, status="RUNNING")
        there = self.client.get_run(self.id).data
        missing = [Param(key, text[:LONGEST]) for key, text in run.config.items() if key not in there.params]
        for first in range(0, len(missing), PARAMETERS_AT_ONCE):  # a changed parameter keeps its first value
            self.client.log_batch(self.id, params=missing[first:first + PARAMETERS_AT_ONCE])
        self.steps = {key: max(point.step for point in self.client.get_metric_history(self.id, key))
                      for key in there.metrics}

    def points(self, rows: Sequence[Row]) -> None:
        new = list(self._new(rows))
        for first in range(0, len(new), AT_ONCE):
            self.client.log_batch(self.id, metrics=new[first:first + AT_ONCE])
        self.steps |= {point.key: point.step for point in new}

    def _new(self, rows: Sequence[Row]) -> Iterator[Any]:
        from mlflow.entities import Metric

        for row in rows:
            for tag, value in row.values.items():
                if row.step > self.steps.get(tag, -1):
                    yield Metric(tag, value, int(row.time * 1000), row.step)

    def picture(self, row: Row) -> None:
        """A file of the step's name, which is written again if it is there."""
        for tag, data in row.pictures.items():
            with TemporaryDirectory() as folder:
                file = f"{folder}/step-{row.step:08d}.png"
                with open(file, "wb") as output:
                    output.write(data)
                self.client.log_artifact(self.id, file, str(PurePath("pictures", tag)))

    def end(self, state: State, verdict: str) -> None:
        if verdict:
            self.client.set_tag(self.id, "drumbeat.verdict", verdict)
        self.client.set_tag(self.id, "drumbeat.state", state)
        self.client.set_terminated(self.id, STATES.get(state, "KILLED"))
