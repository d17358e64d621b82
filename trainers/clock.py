"""Where the time of a run goes, as rank 0 sees it.

The sums travel with each checkpoint, so they hold what led to it and nothing that was lost: what a run's wall time has
beyond them went into starting in vain and into work done twice (`drumbeat.launch.runs.goodput`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

KINDS = ("starting", "waiting", "training", "evaluating", "saving")
"""From the start of an attempt to its first step; for data; in steps; in evaluations; for checkpoints."""


class Clock:
    """Seconds by what they were spent on, those of earlier attempts included."""

    def __init__(self, before: Mapping[str, float], *, began: float) -> None:
        """`began`: when this attempt did, in seconds since 1970."""
        self.seconds = {kind: float(before.get(kind, 0.0)) for kind in KINDS}
        self.since = began

    def spent(self, kind: str) -> None:
        """The time since the last call went into this."""
        now = time.time()
        self.seconds[kind] += max(0.0, now - self.since)
        self.since = now

    def rounded(self) -> dict[str, float]:
        """The sums, to the millisecond."""
        return {kind: round(seconds, 3) for kind, seconds in self.seconds.items()}
