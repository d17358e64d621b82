"""Sends what a run writes to one tracker, beside the run.

    python -m drumbeat.configs.importing drumbeat.trainers.trackers.forward RUN NAME

The launcher starts one such process for each tracker (`launch/attempts/beside.py`), so that no tracker can hold up
another one, or the run. It ends by itself when everything has been sent that the run had written when it ended; or
when the tracker has accepted nothing for `LAST_SECONDS` since then. `drumbeat track` runs the same for a run that has
ended.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

from drumbeat.configs.layers import leaves
from drumbeat.configs.load import plain, read
from drumbeat.configs.run.code_records import CodeSnapshot
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork
from drumbeat.configs.run.output import limit_log, outlive_the_log
from drumbeat.configs.run.records import ENDED, State, Status
from drumbeat.configs.run.tracker_records import Forwarded
from drumbeat.configs.secrets import HIDDEN, hidden, holds_secret, is_secret_name
from drumbeat.configs.trackers import KNOWN, trackers
from drumbeat.trainers.target import instantiate
from drumbeat.trainers.trackers.rows import Rows
from drumbeat.trainers.trackers.tracker import Row, RunInfo, Tracker

POLL_SECONDS = 2.0
"""Between two looks for new points."""
AT_ONCE = 500
"""The largest number of rows that are read before they are sent."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Seconds before a tracker that has failed is tried again: twice as long each time."""
LAST_SECONDS = 300.0
"""How long a tracker may accept nothing, after the end of the run, until this process gives up. On SLURM it ends with
the job, which waits for it for a moment: `launch/attempts/beside.py`."""


class Forwarder:
    """Sends a run's rows to one of its trackers until there are no more."""

    def __init__(self, run: RunDir, name: str, is_over: Callable[[], bool]) -> None:
        """`is_over` says whether the run has ended or left, so that it writes nothing more."""
        self.run, self.name, self.is_over = run, name, is_over
        self.record = run.tracker(name)
        self.forwarded = Forwarded()
        self.wake = threading.Event()
        """Set when the run is over, to end a pause."""

    def forward(self) -> None:
        """Sends everything, and what comes meanwhile. Whatever fails is tried again, after pauses that grow."""
        with suppress(DamagedError):
            self.forwarded = Forwarded.read(self.record) or self.forwarded
        pause = FIRST_PAUSE
        while True:
            before = self.forwarded.rows
            try:
                return self._send_all()
            except Exception as error:
                reason = without_secrets(f"{type(error).__name__}: {error}")
                pause = FIRST_PAUSE if self.forwarded.rows > before else pause
                print(f"{time.strftime('%F %T')} {self.name} failed, next try in {pause:.0f} s: {reason}", flush=True)
                self._record(error=reason, since=self.forwarded.since or time.time())
            self.wake.wait(pause)
            time.sleep(min(pause, POLL_SECONDS))  # after the end, too, it does not ask without a pause
            pause = min(2 * pause, LONGEST_PAUSE)

    def _send_all(self) -> None:
        tracker = build(self.run, self.name)
        tracker.start(run_info(self.run))
        fork = Fork.read(self.run.fork)
        rows = Rows(self.run.tensorboard, fork.curves if fork else None)
        print(f"{time.strftime('%F %T')} {self.name} is connected", flush=True)
        while True:
            over = self.is_over()  # asked before the last rows are read
            found = rows.new()
            while some := list(islice(found, AT_ONCE)):
                send(tracker, some)
                self._record(rows=some[-1].number + 1, step=some[-1].step, error="", since=0.0, state="sending")
            if over:
                tracker.end(*end_of(self.run))
                return self._record(rows=rows.number, error="", since=0.0, state="done")
            self.wake.wait(POLL_SECONDS)

    def _record(self, **changes: object) -> None:
        self.forwarded = replace(self.forwarded, **changes, time=time.time())  # type: ignore[arg-type]
        with suppress(OSError):  # a full disk: the tracker itself knows what it has
            self.forwarded.write(self.record, durable=False)


def send(tracker: Tracker, rows: list[Row]) -> None:
    """Sends rows in their order: points of neighbouring rows at once."""
    for with_pictures, some in groupby(rows, lambda row: bool(row.pictures)):
        if with_pictures:
            for row in some:
                tracker.picture(row)
        else:
            tracker.points(list(some))


def build(run: RunDir, name: str) -> Tracker:
    """The tracker of this name in the run's config, or the one that has the name. Raises `PreflightError` if it cannot
    be built."""
    targets = trackers([*KNOWN]) | trackers(read(run.config).tracking.to)
    tracker: Tracker = instantiate(targets[name], "tracking.to")
    return tracker


def run_info(run: RunDir) -> RunInfo:
    """What trackers know of a run: no secrets."""
    config = {key: HIDDEN if holds_secret(str(value)) else str(value)
              for key, value in leaves(hidden(plain(read(run.config))))}
    links = {"folder": str(run.path)}
    snapshot = CodeSnapshot.read(run.path / "code" / "snapshot.json")
    if commit := next((tree.commit for tree in snapshot.trees if tree.commit), "") if snapshot else "":
        links["commit"] = commit
    return RunInfo(id=run.id, name=run.path.parent.name, folder=run.path, runs=run.all_runs, store=run.trackers,
                   config=config, links=links)


def end_of(run: RunDir) -> tuple[State, str]:
    """The state of a run that is over, and its verdict. One whose launcher was killed still says that it is running."""
    status = Status.read(run.status)
    return (status.state, status.verdict) if status else ("failed", "")


def without_secrets(text: str) -> str:
    """A text of an error in one line of limited length, without the values of secret environment variables and without
    passwords in addresses."""
    for name, value in os.environ.items():
        if is_secret_name(name) and len(value) > 3:
            text = text.replace(value, HIDDEN)
    return re.sub(r"://[^/\s@]+@", f"://{HIDDEN}@", " ".join(text.split()))[:500]


def only_one(run: RunDir, name: str) -> None:
    """Waits until no other process sends this run to this tracker. Its lock is kept until this process ends."""
    with suppress(OSError):  # a file system without locks
        handle = os.open(run.tracker(name).with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)


def main() -> None:
    """Sends a run to one of its trackers. Standard input ends when the launcher does."""
    run, name = RunDir(Path(sys.argv[1])), sys.argv[2]
    outlive_the_log()
    with suppress(OSError):  # a full disk
        run.trackers.mkdir(exist_ok=True)
    gone = threading.Event()

    def is_over() -> bool:
        with suppress(DamagedError):
            status = Status.read(run.status)
            return gone.is_set() or (status is not None and status.state in ENDED)
        return gone.is_set()

    forwarder = Forwarder(run, name, is_over)

    def work() -> None:
        only_one(run, name)
        forwarder.forward()

    thread = threading.Thread(target=work, daemon=True)  # a tracker that never answers does not keep this process
    thread.start()
    until, rows = float("inf"), 0
    while thread.is_alive() and time.monotonic() < until:
        limit_log(run.tracker(name).with_suffix(".log"))
        if not gone.is_set() and select.select([0], [], [], POLL_SECONDS / 4)[0] and not os.read(0, 1):
            gone.set()
        if is_over() and (until == float("inf") or forwarder.forwarded.rows > rows):
            until, rows = time.monotonic() + LAST_SECONDS, forwarder.forwarded.rows
            forwarder.wake.set()
        thread.join(POLL_SECONDS / 4 if gone.is_set() else 0)
    if thread.is_alive():
        print(f"{time.strftime('%F %T')} {name} has not taken the rest within {LAST_SECONDS:.0f} s", flush=True)
    sys.stdout.flush()
    os._exit(int(thread.is_alive()))  # whatever threads the tracker has left


if __name__ == "__main__":
    main()
