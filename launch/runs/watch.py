"""The table of runs on a terminal, renewed until Ctrl-C."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.text import Text

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.terminal import visible
from drumbeat.launch.runs.console import PlainConsole
from drumbeat.launch.runs.find import all_runs
from drumbeat.launch.runs.listing import cells, colored, damaged_cells, describe_each, newest, sized_cells

SECONDS = 2.0
"""Between two tables."""
SLURM_SECONDS = 15.0
"""SLURM is asked at most once in this time. Running runs write their progress to their folders."""
SHARE = 0.1
"""Of the time, at most, in which the folders are read: a slow file server is asked less often."""


Sweeps = Callable[[], tuple[Mapping[str, tuple[str, ...]], set[Path]]]
"""Reads the rows of the sweeps, by their ids, and the folders of their trials."""


def no_sweeps() -> tuple[Mapping[str, tuple[str, ...]], set[Path]]:
    return {}, set()


class Watched:
    """The runs and sweeps in a folder, looked at again and again. Sweeps, which may have a thousand trials, are read
    only when SLURM is asked."""

    def __init__(self, runs: Path, sweeps: Sweeps = no_sweeps, *, sizes: bool = False) -> None:
        self.runs = runs
        self.read_sweeps = sweeps
        self.describe = sized_cells if sizes else cells
        self.rows: dict[RunDir, tuple[str, ...]] = {}
        """As they were last printed."""
        self.sweeps, self.trials = no_sweeps()
        self.asked = float("-inf")
        """When SLURM was asked, in seconds of the monotonic clock."""

    def lines(self, width: int, height: int) -> Iterator[Text]:
        """The table of the newest runs that fit a terminal, and how many there are in all."""
        with redirect_stderr(io.StringIO()):  # there is no room for more than the state of a damaged run
            if asks := time.monotonic() - self.asked >= SLURM_SECONDS:
                self.asked = time.monotonic()
                self.sweeps, self.trials = self.read_sweeps()
            runs = [run for run in all_runs(self.runs) if run.path not in self.trials]
            shown = newest(runs, self.sweeps, max(1, height - 2))  # the header, and the line below
            mine = [run for _, run in shown if run]
            found = [*describe_each(mine, self.describe, damaged_cells, None if asks else self.rows)]
        self.rows = dict(zip(mine, found, strict=True))
        if shown:
            rows = [self.rows[run] if run else self.sweeps[name] for name, run in shown]
            yield from colored([tuple(map(visible, row)) for row in rows], width)
        older = len(runs) + len(self.sweeps) - len(shown)
        counts = [f"{len(runs):,} run{'s' * (len(runs) != 1)}",
                  *([f"{len(self.sweeps):,} sweep{'s' * (len(self.sweeps) != 1)}"] if self.sweeps else [])]
        more = f", {older:,} older not shown" if older else ""
        yield Text(visible(f"{' and '.join(counts)} in {self.runs}{more}; Ctrl-C ends this")[:width], style="dim")


def watch(runs: Path, sweeps: Sweeps, *, sizes: bool = False) -> None:
    """Shows the runs on this terminal until `KeyboardInterrupt`. The last table stays on the screen."""
    console, watched = PlainConsole(), Watched(runs, sweeps, sizes=sizes)
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while True:
            began = time.monotonic()
            live.update(Group(*watched.lines(console.width, console.height - 1)), refresh=True)
            time.sleep(max(SECONDS, (time.monotonic() - began) * (1 / SHARE - 1)))
