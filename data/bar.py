"""How far something long is: a bar on a terminal; elsewhere a plain line every ten seconds, without control characters.

    with Bar() as bar:
        bar("decoding train", done, total)
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import Any

SECONDS = 10.0
"""Between lines, and before the first."""


class Bar:
    """Tells on stderr; nothing where it is not `shown`."""

    def __init__(self, *, shown: bool = True) -> None:
        self.shown = shown
        self.told = time.monotonic()
        self.drawn: Any = None
        self.done: dict[str, int] = {}
        self.lines: dict[str, Any] = {}
        self.stack = ExitStack()

    def __enter__(self) -> Bar:
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self.drawn = self.stack.enter_context(
                Progress(*columns, console=Console(stderr=True), transient=True))
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def __call__(self, name: str, done: int, total: int) -> None:
        """`done` of `total` of what is called `name` is done."""
        self.done[name] = done
        if self.drawn is not None:
            if name not in self.lines:
                self.lines[name] = self.drawn.add_task(name, total=total)
            self.drawn.update(self.lines[name], completed=done, total=total)
        elif self.shown and time.monotonic() - self.told >= SECONDS:
            self.told = time.monotonic()
            print(f"{name}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    def more(self, name: str, by: int, total: int) -> None:
        """So many more of `total` are done."""
        self(name, self.done.get(name, 0) + by, total)
