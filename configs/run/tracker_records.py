"""What the processes beside a run record (`launch/attempts/beside.py`)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from drumbeat.configs.run.record import Record


@dataclass(frozen=True, kw_only=True)
class Forwarded(Record):
    """trackers/NAME.json: what a tracker has been sent. Written by the process that sends it, after each time that the
    tracker has accepted something, and for each failure."""

    rows: int = 0
    """Rows of points that the tracker has."""
    step: int = 0
    """The last of their steps."""
    state: Literal["sending", "done"] = "sending"
    """Whether everything has been sent that the run had written when it ended or left its allocation."""
    error: str = ""
    """Why the tracker did not accept the next rows, in one line; '' if it did."""
    since: float = 0.0
    """When it began to fail, in seconds since 1970; 0 if it does not."""
    time: float = field(default_factory=time.time)
