"""Runs in a table, and as JSON: read from their folders alone."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drumbeat.configs.determinism import operations
from drumbeat.configs.run.folder import ENDED, RunDir, read_json
from drumbeat.launch.runs.find import SILENCE_SECONDS
from drumbeat.launch.runs.goodput import goodput
from drumbeat.launch.runs.status import clock, gone

MOST = 20
"""Runs in the table unless all are asked for."""

COLORS = {"running": "green", "finished": "blue", "failed": "red", "paused": "yellow", "pending": "cyan",
          "preempted": "cyan"}
COLUMNS = ("run", "name", "state", "where", "done", "loss", "samples/s", "eta")
RIGHT = ("done", "loss", "samples/s", "eta")


def facts(run: RunDir) -> dict[str, Any]:
    """What is known of a run, for a program: its status with its name, its folder, and where it runs."""
    status, job, attempt = read_json(run.status), read_json(run.job), run.newest_attempt()
    ended = {} if job.get("where") in ("here", "slurm") else gone(run)  # a table of runs does not wait for SLURM
    return {"id": run.id, "name": run.path.parent.name, "folder": str(run.path), "where": job.get("where"),
            "job": job.get("id"), "host": job.get("host"), "attempt": attempt.number if attempt else None,
            "state": "unknown", **status, **ended, "seconds": goodput(run),
            "nondeterministic_operations": operations(run),
            **({"result": result} if (result := read_json(run.result)) else {})}


def as_json(value: Any) -> str:
    """JSON that any program reads: a loss that is no number is null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda name: None), indent=2)


def show(runs: Sequence[RunDir], folder: Path, *, every: bool) -> None:
    """Prints the runs, the newest first: a table on a terminal, which cuts long names; plain and whole in a pipe."""
    if not runs:
        print(f"no runs in {folder}", file=sys.stderr)
        return
    shown = list(reversed(runs))[:None if every else MOST]
    rows = [row(facts(run)) for run in shown]
    if sys.stdout.isatty():
        _print(rows, width=shutil.get_terminal_size().columns)
    else:
        _print([(run.id, *cells[1:]) for run, cells in zip(shown, rows, strict=True)])
    if len(shown) < len(runs):
        print(f"... and {len(runs) - len(shown)} older: --all", file=sys.stderr)


def row(known: dict[str, Any]) -> tuple[str, ...]:
    """A run's line in the table. It is called by the letters its id ends with, which is enough to name it."""
    state, steps = str(known["state"]), known.get("steps")
    going = state in ("running", "paused")
    silence = time.time() - float(known.get("time", 0.0))
    numbers = known.get("result", {}).get("test") or known.get("result", {}).get("best") or known
    return (known["id"].rpartition("-")[2], known["name"],
            f"silent {clock(silence)}" if going and silence > SILENCE_SECONDS else state, _where(known),
            f"{known.get('step', 0) / steps:.0%}" if steps else "",
            f"{numbers['loss']:.4f}" if isinstance(numbers.get("loss"), float) else "",
            f"{known['samples_per_second']:,.0f}" if state == "running" and "samples_per_second" in known else "",
            clock(known["eta_seconds"]) if state == "running" and "eta_seconds" in known else "")


def _where(known: dict[str, Any]) -> str:
    if known["where"] in ("here", "slurm"):
        return f"job {known['job']}"
    here = known["host"] in (None, socket.gethostname())
    return ("debug" if known["where"] == "debug" else "here") if here or known["state"] in ENDED else known["host"]


def _print(rows: Sequence[Sequence[str]], width: int | None = None) -> None:
    """The table under its heads, in colour and with long names cut where it has a width to fit."""
    from rich.console import Console
    from rich.text import Text

    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    if width is not None:
        widths[1] = max(4, widths[1] - max(0, sum(widths) + 2 * len(widths) - 2 - width))
    console = Console(highlight=False, soft_wrap=True, no_color=width is None)
    for number, cells in enumerate([COLUMNS, *rows]):
        line = Text(style="bold" if number == 0 and width else "")
        for name, cell, space in zip(COLUMNS, cells, widths, strict=True):
            cut = cell if len(cell) <= space else f"{cell[:space - 1]}…"
            line.append(f"{cut:>{space}}" if name in RIGHT else f"{cut:<{space}}",
                        COLORS.get(cell, "") if name == "state" and number and width else "")
            line.append("  ")
        line.rstrip()
        console.print(line)
