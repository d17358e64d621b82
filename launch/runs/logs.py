"""The logs and errors of the ranks of a run."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.layers import short
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.files import open_file
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import RankError, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.attempts.logs import numbered
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.typed import command
from drumbeat.launch.runs.status import with_final_state

POLL_SECONDS = 0.5
CHECK_SECONDS = 15.0
"""Seconds between two checks, with `follow`, whether the run still exists: it may be unable to record its end."""


CHUNK = 1 << 20
"""Bytes of a log that are read at a time. A longer line is broken."""
COLORS = re.compile(r"\x1b\[[0-9;:]*m")
"""The escape sequences with which programs color their output. They are left out."""


class Tail:
    """Reads new lines from a file that another process writes. The file may be large."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = 0

    def lines(self, *, unfinished: bool = False) -> Iterator[str]:
        """The complete lines written since the last call; with `unfinished`, also an incomplete last line. None if
        the file does not exist. Raises `DamagedError` if it is not a regular file of the run."""
        try:
            file = open_file(self.path, None)
        except FileNotFoundError:
            return
        with file:
            end = os.fstat(file.fileno()).st_size
            while self.seen < end:
                file.seek(self.seen)
                new = file.read(min(CHUNK, end - self.seen))
                last = self.seen + len(new) == end
                whole = new.rfind(b"\n") + 1
                if (last and unfinished) or (not whole and len(new) == CHUNK):
                    whole = len(new)
                if not whole:
                    return
                self.seen += whole
                yield from COLORS.sub("", new[:whole].decode(errors="replace")).splitlines()


def log_lines(view: View, *, rank: int | None, follow: bool, attempt: int | Literal["all"] | None = None
              ) -> Iterator[str]:
    """The log lines of a rank, or of all ranks if it is None: of the newest attempt, of the attempt with a number, or
    of all attempts, each with a heading. With `follow`, also new lines and later attempts until the run ends. Raises
    `RunError` if there is no such log."""
    view = with_final_state(view)
    run, headed = view.run, attempt == "all"
    if attempt == "all":
        yield from _earlier_attempts(view, rank)
        attempt = None
    elif attempt is None and not follow and view.number > 0:
        print(f"note: this is attempt {view.number}; earlier ones: --attempt K or --attempt all",
              file=sys.stderr)
    shown = _attempt(view, attempt)
    if not follow:
        if shown is None and view.ended and view.verdict:
            yield from _job_log(view)
            return
        _check_log(run, shown, rank)
    tails: dict[str, Tail] = {}
    next_check = time.monotonic() + CHECK_SECONDS
    while True:
        ended, newest = view.ended, view.attempt
        if attempt is None and newest is not None and newest != shown:
            shown, tails = newest, {}
            if headed:
                yield f"--- attempt {newest.number}"
        if shown is not None:
            for name, path in _logs(shown, rank):
                lines = tails.setdefault(name, Tail(path)).lines(unfinished=ended or not follow)
                yield from (f"{name:>7} | {line}" for line in lines) if rank is None else lines
        if ended or not follow or (attempt is not None and newest != shown):
            if ended and attempt is None:
                yield from _job_log(view)
            return
        time.sleep(POLL_SECONDS)
        view = View.read(run)
        if time.monotonic() > next_check:
            view, next_check = with_final_state(view), time.monotonic() + CHECK_SECONDS


def _job_log(view: View) -> Iterator[str]:
    """The log of a job that ended before it started an attempt, and the reason."""
    files = backend_of(view.backend).job_log(view)
    for path in files:
        yield f"--- {short(path)}"
        yield from Tail(path).lines(unfinished=True)
    if files or view.attempt is None:
        yield f"--- {view.state}: {view.verdict}"


def _earlier_attempts(view: View, rank: int | None) -> Iterator[str]:
    """The logs of all attempts except the newest, each with a heading, and the heading of the newest."""
    for number in range(view.number + 1):
        yield f"--- attempt {number}"
        for name, path in _logs(view.run.attempt(number), rank) if number < view.number else ():
            lines = Tail(path).lines(unfinished=True)
            yield from (f"{name:>7} | {line}" for line in lines) if rank is None else lines


def error_lines(view: View, attempt: int | None = None) -> Iterator[str]:
    """The errors of an attempt, or of the newest attempt that has any: each rank's error with its traceback, earliest
    first, and the verdict. If there are none, a line that says so."""
    _attempt(view, attempt)
    for number in range(view.number, -1, -1) if attempt is None else (attempt,):
        found = view.run.attempt(number)
        if errors := found.errors():
            for error in errors:
                yield from _error_lines(found, error)
            verdict = Verdict.read(found.verdict)
            yield f"--- attempt {number}: {verdict.message if verdict else 'no verdict yet'}"
            return
    where = f"in attempt {attempt}" if attempt is not None else "in any attempt" if view.attempt else "yet"
    yield f"no rank has reported an error {where}; the run is {view.state or 'unknown'}"
    if view.state == "failed":
        yield view.verdict
        yield f"The log of torchrun: {command('logs --all', view.run)}"


def _error_lines(attempt: Attempt, error: RankError) -> Iterator[str]:
    yield f"--- rank {error.rank} on {error.node}, attempt {attempt.number}, step {error.step}"
    yield from (error.traceback or f"{error.type}: {error.message}").splitlines()
    yield ""


def _attempt(view: View, number: int | None) -> Attempt | None:
    """The attempt with a number, or the newest; None before the first. Raises `RunError` if it does not exist."""
    if number is None:
        return view.attempt
    if view.attempt and (found := view.run.attempt(number)).path.is_dir():
        return found
    raise RunError(Fault(what=f"there is no attempt {number}", where=str(view.run.attempts),
                         remedy=f"They are numbered from 0 to {view.number}." if view.attempt else
                         "None has started yet."))


def _logs(attempt: Attempt, rank: int | None) -> list[tuple[str, Path]]:
    """The name and path of a rank's log, or of all logs: first the ranks', then torchrun's."""
    if rank is not None:
        return [(f"rank {rank}", attempt.log(rank))]
    return [(f"{kind} {number}", path) for kind in ("rank", "node")
            for number, path in numbered(attempt.path, kind, ".log")]


def _check_log(run: RunDir, attempt: Attempt | None, rank: int | None) -> None:
    """Raises `RunError` if there is no such log. Notes on stderr if it is empty."""
    if attempt is None:
        raise RunError(Fault(what="no attempt has started yet", where=str(run.path),
                             remedy="Try again later, or use -f."))
    if attempt.verdict.exists() and not _logs(attempt, None):
        raise RunError(Fault(what=f"attempt {attempt.number} has no logs any more", where=str(attempt.path),
                             remedy="`drumbeat clean` has removed them. The errors of its ranks are kept: "
                                    f"{command('logs --errors', run)} --attempt {attempt.number}"))
    if rank is not None and not attempt.log(rank).exists():
        ranks = [number for number, _ in numbered(attempt.path, "rank", ".log")]
        raise RunError(Fault(what=f"rank {rank} has no log", where=str(attempt.path),
                             remedy=f"Ranks with one: {', '.join(map(str, ranks))}" if ranks else
                             f"Look at {attempt.node_log(0)}"))
    if not any(path.stat().st_size for _, path in _logs(attempt, rank)):
        who = "no rank" if rank is None else f"rank {rank}"
        print(f"note: {who} has printed anything in attempt {attempt.number}" if rank is None else
              f"note: {who} has printed nothing in attempt {attempt.number}: {short(attempt.log(rank))} is empty",
              file=sys.stderr)
