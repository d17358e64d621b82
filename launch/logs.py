"""What the ranks of a run printed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from configs.errors import Fault, RunError
from configs.rundir import ENDED, Attempt, RunDir, read_json


class Tail:
    """New lines of a file that another process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = 0

    def lines(self, *, unfinished: bool = False) -> list[str]:
        """What was written since the last call, in whole lines; with `unfinished`, the last piece too."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self.seen)
            new = file.read()
        if not unfinished:
            new = new[:new.rfind(b"\n") + 1]
        self.seen += len(new)
        return new.decode(errors="replace").splitlines()


def log_lines(run: RunDir, *, rank: int, follow: bool) -> Iterator[str]:
    """Lines of a rank's log in the newest attempt; with `follow`, of later attempts too, until the run ends."""
    attempt = run.newest_attempt()
    if not follow:
        _check_log(run, attempt, rank)
    tail: Tail | None = None
    while True:
        ended = read_json(run.status).get("state") in ENDED
        newest = run.newest_attempt()
        if newest is not None and (tail is None or newest != attempt):
            attempt, tail = newest, Tail(newest.log(rank))
        if tail is not None:
            yield from tail.lines(unfinished=ended or not follow)
        if ended or not follow:
            return
        time.sleep(0.5)


def _check_log(run: RunDir, attempt: Attempt | None, rank: int) -> None:
    if attempt is None:
        raise RunError(Fault(what="no attempt has begun yet", where=str(run.path), remedy="Look again, or use -f."))
    if not attempt.log(rank).exists():
        ranks = sorted(int(path.stem.removeprefix("rank")) for path in attempt.path.glob("rank*.log"))
        raise RunError(Fault(what=f"rank {rank} has no log", where=str(attempt.path),
                             remedy=f"Ranks with one: {', '.join(map(str, ranks))}" if ranks else
                             f"Look at {attempt.node_log(0)}"))
