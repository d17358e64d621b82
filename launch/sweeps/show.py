"""Sweeps as `status` and `ls` show them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import UserError, headline
from drumbeat.configs.run.sweep import SweepDir
from drumbeat.launch.runs.listing import with_size
from drumbeat.launch.sweeps import states
from drumbeat.launch.sweeps.control import keep_queue


def sweep_status(folder: SweepDir) -> str:
    """The state of a sweep as text. Starts its queue again if it was killed."""
    sweep = folder.read()
    found = states.states_of(folder, sweep)
    if message := keep_queue(folder, sweep, found):
        print(f"note       {message}", file=sys.stderr)
    return states.status_text(folder, sweep, found)


def sweep_json(folder: SweepDir) -> dict[str, Any]:
    """All fields of a sweep."""
    sweep = folder.read()
    return states.facts(folder, sweep, states.states_of(folder, sweep))


def listed(sweeps: Iterable[SweepDir], *, sizes: bool = False) -> tuple[dict[str, tuple[str, ...]], set[Path]]:
    """The rows of sweeps for the table of `ls`, by their ids, with `sizes` also those of their folders, and the folders
    of their trials, which it leaves out. A line on stderr names a sweep whose record is damaged; its trials are
    listed."""
    rows: dict[str, tuple[str, ...]] = {}
    trials: set[Path] = set()
    for folder in sweeps:
        try:
            sweep = folder.read()
        except UserError as error:
            print(f"damaged    {folder.record}: {headline(str(error))}", file=sys.stderr)
            continue
        row = states.cells(folder, sweep, states.states_of(folder, sweep))
        rows[sweep.id] = with_size(row, folder.path) if sizes else row
        trials |= {folder.run(sweep, trial.number).path for trial in sweep.trials}
    return rows, trials
