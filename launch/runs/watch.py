"""The table of runs on a terminal, renewed until Ctrl-C."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.text import Text

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.terminal import visible
from drumbeat.launch.runs.console import PlainConsole
from drumbeat.launch.runs.find import all_runs
from drumbeat.launch.runs.listing import cells, colored, damaged_cells, describe_each, sized_cells

SECONDS = 2.0
"""Between two tables."""
SLURM_SECONDS = 15.0
"""SLURM is asked at most once in this time. Running runs write their progress to their folders."""
SHARE = 0.1
"""Of the time, at most, in which the folders are read: a slow file server is asked less often."""


class Watched:
    """The runs in a folder, looked at again and again."""

    def __init__(self, runs: Path, *, sizes: bool = False) -> None:
        self.runs = runs
        self.sizes = sizes
        self.rows: dict[RunDir, tuple[str, ...]] = {}
        """As they were last printed."""
        self.asked = float("-inf")
        """When SLURM was asked, in seconds of the monotonic clock."""

    def lines(self, width: int, height: int) -> Iterator[Text]:
        """The table of the newest runs that fit a terminal, and how many there are in all."""
        runs = all_runs(self.runs)[::-1]
        shown = runs[:max(1, height - 2)]  # the header, and the line below
        if asks := time.monotonic() - self.asked >= SLURM_SECONDS:
            self.asked = time.monotonic()
        with redirect_stderr(io.StringIO()):  # there is no room for more than the state of a damaged run
            found = [*describe_each(shown, sized_cells if self.sizes else cells, damaged_cells,
                                    None if asks else self.rows)]
        self.rows = {run: tuple(map(visible, row)) for run, row in zip(shown, found, strict=True)}
        if runs:
            yield from colored([*self.rows.values()], width)
        older = f", {len(runs) - len(shown):,} older ones not shown" if len(shown) < len(runs) else ""
        where = visible(f"{len(runs):,} run{'s' * (len(runs) != 1)} in {self.runs}{older}; Ctrl-C ends this")
        yield Text(where[:width], style="dim")


def watch(runs: Path, *, sizes: bool = False) -> None:
    """Shows the runs on this terminal until `KeyboardInterrupt`. The last table stays on the screen."""
    console, watched = PlainConsole(), Watched(runs, sizes=sizes)
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while True:
            began = time.monotonic()
            live.update(Group(*watched.lines(console.width, console.height - 1)), refresh=True)
            time.sleep(max(SECONDS, (time.monotonic() - began) * (1 / SHARE - 1)))
