"""Event files as a run writes them, trackers that do what a test needs, and a run that is sent while it is killed.

    python -m tests.trainers.trackers.made RUN NAME      sends a run to a tracker, and is killed ten times

This module does not import torch.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import State
from drumbeat.trainers.trackers import forward
from drumbeat.trainers.trackers.tracker import Row, RunInfo, Tracker

KILLS = 10
STEPS = 60
"""Of the run, with a point every other step, an evaluation every six steps and a picture every twelve."""
PICTURE = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478da63f8cfc0"
                        "000003010100c9fe92ef0000000049454e44ae426082")
"""A PNG of one pixel."""


def write_run(run: RunDir, *trackers: Any) -> None:
    """A run folder with a config that names trackers, and a state."""
    run.path.mkdir(parents=True, exist_ok=True)
    run.config.write_text(json.dumps({
        "name": run.path.parent.name, "batch_size": 4, "model": {"_target_": "x.Net", "api_key": "1234567"},
        "phases": {"train": {"epochs": 1, "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.5}}},
        "tracking": {"to": list(trackers)}}))
    run.write_status("running", attempt=-1)
    run.trackers.mkdir(exist_ok=True)


def write_attempt(run: RunDir, number: int, first: int, last: int, *, torn: int = 0) -> None:
    """The event file of an attempt that resumed from step `first` and has written until step `last`, without so many
    bytes at its end."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    writer = RecordWriter(content)

    def write(**fields: Any) -> None:
        writer.write(Event(wall_time=1000.0 + fields.get("step", 0), **fields).SerializeToString())

    def points(step: int, **values: float) -> None:
        write(step=step, summary=Summary(value=[Summary.Value(tag=f"{group}/loss", simple_value=value)
                                                for group, value in values.items()]))

    write(file_version="brain.Event:2")
    write(step=first + 1 if first else 0, session_log=SessionLog(status=SessionLog.START))
    for step in range(first + 1, last + 1):
        if step % 2 == 0:
            points(step, train=1 / step)
        if step % 6 == 0:
            points(step, validation=2 / step)
        if step % 12 == 0:
            picture = Summary.Image(encoded_image_string=PICTURE, height=1, width=1, colorspace=3)
            write(step=step, summary=Summary(value=[Summary.Value(tag="train/images", image=picture)]))
    run.tensorboard.mkdir(exist_ok=True)
    data = content.getvalue()
    (run.tensorboard / f"events.out.tfevents.{number:010d}.n1.7").write_bytes(data[:len(data) - torn])


CURVES = {"train/loss": list(range(2, STEPS + 1, 2)), "validation/loss": list(range(6, STEPS + 1, 6))}
"""The steps that a tracker must have, each once."""


class Listed(Tracker):
    """Appends what it gets to a file, as JSON lines, and leaves out what the file has."""

    def __init__(self, *, file: str, fails: int = 0) -> None:
        """It fails when it is asked to start, the first so many times."""
        self.file, self.fails = Path(file), fails
        self.count = 0

    def start(self, run: RunInfo) -> None:
        tries = self.file.with_suffix(".tries")
        with open(tries, "a") as output:
            output.write("x")
        if tries.stat().st_size <= self.fails:
            raise ConnectionError(f"https://me:{os.environ.get('SOME_TOKEN', 'nothing')}@host refuses")
        self.count = len(self.rows(self.file))
        self.write({"config": dict(run.config), "links": dict(run.links)})

    def points(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.number >= self.count:
                self.write({"number": row.number, "step": row.step, "values": dict(row.values)})

    def picture(self, row: Row) -> None:
        if row.number >= self.count:
            self.write({"number": row.number, "step": row.step, "pictures": [*row.pictures]})

    def end(self, state: State, verdict: str) -> None:
        self.write({"end": state})

    def write(self, line: dict[str, Any]) -> None:
        with open(self.file, "a") as output:
            output.write(json.dumps(line) + "\n")

    @staticmethod
    def rows(file: Path) -> list[dict[str, Any]]:
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in map(json.loads, lines) if "number" in line]


class Silent(Listed):
    """Waits forever for a server that never answers."""

    def __init__(self, *, file: str, port: int) -> None:
        super().__init__(file=file)
        self.port = port

    def start(self, run: RunInfo) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.recv(1)


class Killed(Tracker):
    """Another tracker whose process is killed when it is sent something for the `at`-th time: before that, after half
    of it, or when all of it was accepted and nothing is recorded yet."""

    def __init__(self, inner: Tracker, at: int) -> None:
        self.inner, self.at = inner, at

    def start(self, run: RunInfo) -> None:
        self.inner.start(run)

    def points(self, rows: Sequence[Row]) -> None:
        self.at -= 1
        accepted = len(rows) if self.at > 0 else (0, len(rows) // 2, len(rows))[len(rows) % 3]
        self.inner.points(rows[:accepted])
        if self.at <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def picture(self, row: Row) -> None:
        self.inner.picture(row)

    def end(self, state: State, verdict: str) -> None:
        self.inner.end(state, verdict)


STORES = {"mlflow": "mlflow.store.tracking.sqlalchemy_store", "trackio": "trackio.sqlite_storage", "wandb": "wandb"}
"""What is slow to import."""


def send_and_die(run: RunDir, name: str, number: int) -> None:
    """Sends the run and kills this process for the `number`-th time; sends everything if it was killed often enough."""
    build, forward.AT_ONCE = forward.build, 4
    if number < KILLS:
        forward.build = lambda *asked: Killed(build(*asked), at=1 + number % 3)  # type: ignore[assignment]
    else:
        run.write_status("finished", attempt=-1, verdict="finished at step 60")
    forward.Forwarder(run, name, lambda: number == KILLS).forward()


def main() -> None:
    """Forks a process that sends the run, ten times, and kills it and the run: each time the run resumes a little
    before, with a torn file behind it. The last one sends everything."""
    run, name = RunDir(Path(sys.argv[1])), sys.argv[2]
    importlib.import_module(STORES[name])
    for number in range(KILLS + 1):
        last = STEPS * (number + 1) // (KILLS + 1)
        write_attempt(run, number, max(0, STEPS * number // (KILLS + 1) - 5), last, torn=9 * (number < KILLS))
        if (child := os.fork()) == 0:
            send_and_die(run, name, number)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}", flush=True)


if __name__ == "__main__":
    main()
