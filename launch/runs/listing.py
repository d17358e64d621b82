"""Runs in a table and as JSON, read from their folders."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from drumbeat.configs.run.determinism import operations
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Heartbeat
from drumbeat.configs.run.view import View
from drumbeat.configs.terminal import visible
from drumbeat.configs.text_fields import clock
from drumbeat.configs.text_table import aligned, widths
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.contract import Evidence
from drumbeat.launch.backends.local import SILENCE_SECONDS
from drumbeat.launch.runs.disk_use import bytes_text, disk_use
from drumbeat.launch.runs.goodput import goodput
from drumbeat.launch.runs.index import Index
from drumbeat.launch.runs.notices import report
from drumbeat.launch.runs.status import asks_slurm, evidence_of, with_final_state

if TYPE_CHECKING:
    from rich.text import Text

MAX_ROWS = 20
"""Rows of the table without --all."""
MANY = 200
"""Fewer runs are read as fast as an index of them."""

COLORS = {"running": "green", "finished": "blue", "failed": "red", "paused": "yellow", "pending": "cyan",
          "preempted": "cyan", "damaged": "red"}
COLUMNS = ("run", "name", "state", "where", "done", "best", "train loss", "eta", "size", "fork of")
"""`best` is the best value of the monitored metric so far, with its name; the speed is in `status` and in the JSON."""
RIGHT = ("done", "train loss", "eta", "size")
OPTIONAL = ("size", "fork of")
"""The columns that are left out if they are empty: sizes unless they are asked for, and if no run is a fork."""

SHORTEST_NAME, SHORTEST_BEST = 8, 12
"""Characters that are left of a run's name, and of a metric with its value, at least."""

UNKNOWN = Evidence()
"""Of a run of which nobody asked."""

T = TypeVar("T")


def facts(view: View, evidence: Evidence = UNKNOWN) -> dict[str, Any]:
    """The fields of a run for the JSON output. Unknown fields are left out."""
    job, beat, blank = view.job, view.heartbeat, Heartbeat(time=0.0).as_json()
    progress = {name: value for name, value in beat.as_json().items()
                if name in ("step", "gpu") or value != blank.get(name)} if beat else {}
    status = {"verdict": view.verdict, "time": view.last_heartbeat} if view.status else {}
    result = {"result": {"state": "finished", **view.result.as_json()}} if view.result else {}
    versions = {"versions": view.versions.as_json()} if view.versions else {}
    slow = {"slow_rank": view.slow_rank.as_json()} if view.slow_rank else {}
    fork = {"fork": {"parent": view.fork.parent, "folder": view.fork.folder, "step": view.fork.step}
            } if view.fork else {}
    return {**_named(view.run), **fork, "backend": view.backend, "job": job.id if job else None,
            "host": job.host if job else None, "attempt": view.number if view.attempt else None, **progress,
            "state": view.state or "unknown", **status, **slow, "seconds": goodput(view),
            "nondeterministic_operations": operations(view.run), **versions, **result}


def sized_facts(view: View, evidence: Evidence = UNKNOWN) -> dict[str, Any]:
    """The fields of a run, with the `bytes` of its folder."""
    return {**facts(view, evidence), "bytes": disk_use(view.run.path)}


def damaged_facts(run: RunDir, reason: str) -> dict[str, Any]:
    """The fields of a run with a damaged file."""
    return {**_named(run), "backend": None, "job": None, "host": None, "attempt": None, "state": "damaged",
            "verdict": reason}


def _named(run: RunDir) -> dict[str, str]:
    return {"id": run.id, "name": run.path.parent.name, "folder": str(run.path)}


def describe_each(runs: Sequence[RunDir], describe: Callable[[View, Evidence], T],
                  damaged: Callable[[RunDir, str], T], answered: Mapping[RunDir, T] | None = None) -> Iterator[T]:
    """The description of each run, from its view and the evidence that it is running. If a file of
    a run cannot be read, a line on stderr names the file and the reason, and the other runs are listed as usual. SLURM
    is asked once for all runs. Of many runs, those that have ended are read once, and then found in an index.

    With `answered` SLURM is not asked: a run for which it would be is described as in an earlier answer, or without
    one as its folder says."""
    index = Index.read(runs[0].all_runs, describe.__name__) if len(runs) >= MANY else None
    read = [(run, (index and index.get(run)) or _read(run)) for run in runs]
    seen: list[View] = []
    views = [view for _, view in read if isinstance(view, View)]
    unasked = {view.run for view in views if asks_slurm(view)} if answered is not None else set()
    evidence = evidence_of([view for view in views if view.run not in unasked])
    for run, view in read:
        try:
            if isinstance(view, DamagedError | OSError):
                raise view
            if not isinstance(view, View):
                yield view
                continue
            if answered is not None and run in unasked:
                yield answered[run] if run in answered else describe(view, UNKNOWN)
                continue
            found = evidence.get(view.run.path)
            said = describe(with_final_state(view, found.text if found else None, report=seen.append),
                            found or UNKNOWN)
            if index:
                index.keep(view, said)
            yield said
        except Exception as error:  # whatever is wrong with one run: the others are listed
            where, why = (error.path, error.reason) if isinstance(error, DamagedError) else (
                error.filename, error.strerror) if isinstance(error, OSError) else (run.path, f"{error!r:.200}")
            print(f"damaged    {where}: {why}", file=sys.stderr)
            yield damaged(run, f"{where}: {why}")
    report(*seen)
    if index:
        index.write(runs)


def _read(run: RunDir) -> View | DamagedError | OSError:
    try:
        return View.read(run)
    except (DamagedError, OSError) as error:
        return error


def print_table(runs: Sequence[RunDir], folder: Path, *, every: bool, sizes: bool = False,
                sweeps: Mapping[str, tuple[str, ...]] | None = None) -> None:
    """Prints the runs, newest first, with `sizes` also those of their folders, and the rows of `sweeps`, which are
    given by their ids: on a terminal a table that fits it, in a pipe plain text with nothing shortened."""
    sweeps = sweeps or {}
    if not runs and not sweeps:
        print(f"no runs in {folder}", file=sys.stderr)
        return
    shown = newest(runs, sweeps, None if every else MAX_ROWS)
    described = iter(list(describe_each([run for _, run in shown if run], sized_cells if sizes else cells,
                                        damaged_cells)))
    rows = [tuple(map(visible, next(described) if run else sweeps[name])) for name, run in shown]
    if sys.stdout.isatty():
        from drumbeat.launch.runs.console import PlainConsole

        console = PlainConsole()
        for line in colored(rows, shutil.get_terminal_size().columns):
            console.print(line)
    else:
        full = [(name if run else row[0], *row[1:]) for (name, run), row in zip(shown, rows, strict=True)]
        table = _needed([COLUMNS, *full])
        print("\n".join(aligned(table, _right(table))))
    if (more := len(runs) + len(sweeps) - len(shown)) > 0:
        print(f"... and {more} older: --all", file=sys.stderr)


def newest(runs: Sequence[RunDir], sweeps: Iterable[str], most: int | None) -> list[tuple[str, RunDir | None]]:
    """The ids of the newest runs and sweeps, at most so many, each with its run; None for a sweep."""
    found = [*((run.id, run) for run in reversed(runs)), *((name, None) for name in sweeps)]
    return sorted(found, key=lambda one: one[0], reverse=True)[:most]


def cells(view: View, evidence: Evidence = UNKNOWN) -> tuple[str, ...]:
    """A run's row in the table. The last characters of its id are enough to name it."""
    state, beat = view.state or "unknown", view.heartbeat or Heartbeat()
    silent = state in ("running", "paused") and view.seconds_since_heartbeat() > SILENCE_SECONDS
    return (view.run.id.rpartition("-")[2], view.run.path.parent.name,
            (f"{'suspended' if evidence.suspended else 'silent'} "
             f"{clock(view.seconds_since_heartbeat())}") if silent else state,
            backend_of(view.backend).label(view),
            f"{beat.step / beat.steps:.0%}" if beat.steps else "",
            f"{beat.monitor} {beat.best:.4f}" if beat.best is not None else "",
            f"{beat.loss:.4f}" if beat.loss is not None else "",
            clock(beat.eta_seconds) if state == "running" and beat.eta_seconds is not None else "", "",
            f"{view.fork.parent.rpartition('-')[2]} at {view.fork.step:,}" if view.fork else "")


def sized_cells(view: View, evidence: Evidence = UNKNOWN) -> tuple[str, ...]:
    """A run's row, with the size of its folder."""
    return with_size(cells(view, evidence), view.run.path)


def with_size(row: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """A row of the table, with the size of a folder."""
    size = COLUMNS.index("size")
    return (*row[:size], bytes_text(disk_use(folder)), *row[size + 1:])


def damaged_cells(run: RunDir, reason: str) -> tuple[str, ...]:
    """The row of a run with a damaged file."""
    return (run.id.rpartition("-")[2], run.path.parent.name, "damaged", *[""] * (len(COLUMNS) - 3))


def colored(rows: Sequence[Sequence[str]], width: int) -> Iterator[Text]:
    """The lines of the table with its header, in colour, for a terminal with `width` columns: long names are
    shortened."""
    from rich.text import Text

    cut = fitted(_needed([COLUMNS, *rows]), width)
    state_at = sum(widths(cut)[:2]) + 4
    for number, (cells, line) in enumerate(zip(cut, aligned(cut, _right(cut)), strict=True)):
        text = Text(line, style="" if number else "bold")
        text.stylize(COLORS.get(cells[2], "") if number else "", state_at, state_at + len(cells[2]))
        yield text


def _needed(table: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The table, with its header, without optional columns that are empty."""
    empty = {COLUMNS.index(name) for name in OPTIONAL if not any(row[COLUMNS.index(name)] for row in table[1:])}
    return [tuple(cell for column, cell in enumerate(row) if column not in empty) for row in table]


def _right(table: Sequence[Sequence[str]]) -> list[int]:
    """The numbers of the columns that are right-aligned."""
    return [number for number, name in enumerate(table[0]) if name in RIGHT]


def fitted(table: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """The table in `width` columns: names are shortened first, then the names of metrics, both with an ellipsis."""
    name, best = COLUMNS.index("name"), COLUMNS.index("best")
    cut = [list(cells) for cells in table]
    for column, least in ((name, SHORTEST_NAME), (best, SHORTEST_BEST)):
        spaces = widths(cut)
        room = max(least, spaces[column] - max(0, sum(spaces) + 2 * len(spaces) - 2 - width))
        for cells in cut:
            text, space, value = cells[column].rpartition(" ")
            text, value = (text, space + value) if space else (value, "")
            if len(text) + len(value) > room:
                cells[column] = f"{text[:room - len(value) - 1]}…{value}"
    return cut
