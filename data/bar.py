"""Progress of a long operation: a bar on a terminal, elsewhere a plain line every ten seconds.

    with Bar() as bar:
        bar("decoding train", done, total)
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import Any

SECONDS = 10.0
"""Seconds between two lines, and before the first."""


class Bar:
    """Progress on stderr, if `shown`."""

    def __init__(self, *, shown: bool = True) -> None:
        self.shown = shown
        self.printed_at = time.monotonic()
        self.progress: Any = None
        self.done: dict[str, int] = {}
        self.tasks: dict[str, Any] = {}
        self.stack = ExitStack()

    def __enter__(self) -> Bar:
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            stream = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # as rich itself looks for it
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self.progress = self.stack.enter_context(
                Progress(*columns, console=Console(file=stream), transient=True, redirect_stdout=False,
                         redirect_stderr=False))
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Shows that `done` of `total` items of the task `name` are done."""
        self.done[name] = done
        if self.progress is not None:
            if name not in self.tasks:
                self.tasks[name] = self.progress.add_task(name, total=total)
            self.progress.update(self.tasks[name], completed=done, total=total)
        elif self.shown and time.monotonic() - self.printed_at >= SECONDS:
            self.printed_at = time.monotonic()
            print(f"{name}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    def advance(self, name: str, by: int, total: int) -> None:
        """Shows that `by` more of `total` items are done."""
        self(name, self.done.get(name, 0) + by, total)
