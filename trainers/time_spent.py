"""The time of a run by kind, measured on rank 0.

The sums are saved with each checkpoint, so they include the time that led to it and no lost work. The rest of the run's
wall time was spent on failed starts and on repeated steps (`drumbeat.launch.runs.goodput`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

KINDS = ("starting", "waiting", "training", "evaluating", "saving")
"""Starting: from the start of an attempt to its first step. Waiting: for data. Training: in steps."""


class TimeSpent:
    """Seconds by kind, including those of earlier attempts."""

    def __init__(self, before: Mapping[str, float], *, began: float) -> None:
        """`began` is when this attempt started, in seconds since 1970."""
        self.seconds = {kind: float(before.get(kind, 0.0)) for kind in KINDS}
        self.since = time.monotonic() - max(0.0, time.time() - began)

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
