"""The time of a run by kind, measured on rank 0.

The sums are saved with each checkpoint, so they include the time that led to it and no lost work. The rest of the run's
wall time was spent on failed starts and on repeated steps (`drumbeat.launch.runs.goodput`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

KINDS = ("importing", "starting", "waiting", "training", "evaluating", "saving")
"""Importing: in the process that the ranks are forked from. Starting: the rest of the time from the start of an attempt
to its first step. Waiting: for data. Training: in steps."""


class TimeSpent:
    """Seconds by kind, including those of earlier attempts."""

    def __init__(self, before: Mapping[str, float], *, began: float, importing: float = 0.0) -> None:
        """`began` is when this attempt started, in seconds since 1970, and `importing` how long its imports took."""
        self.seconds = {kind: float(before.get(kind, 0.0)) for kind in KINDS}
        elapsed = max(0.0, time.time() - began)
        importing = min(importing, elapsed)
        self.seconds["importing"] += importing
        self.since = time.monotonic() - elapsed + importing

    def add(self, kind: str) -> None:
        """Adds the time since the last call to this kind."""
        now = time.monotonic()
        self.seconds[kind] += now - self.since
        self.since = now

    def total(self) -> float:
        """The sum over all kinds, until now."""
        return sum(self.seconds.values()) + time.monotonic() - self.since

    def rounded(self) -> dict[str, float]:
        """The sums, rounded to milliseconds."""
        return {kind: round(seconds, 3) for kind, seconds in self.seconds.items()}
