"""Whether ranks of this node hang, as the launcher notices: their watchdogs (`trainers/watchdog.py`) count in a file.

Only the time counts for which the launcher runs itself, because SLURM suspends all processes of a job together; and for
which it could write there itself, because a rank whose disk is read-only or gone cannot show its progress.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drumbeat.configs.patience import GRACE, PROGRESS

CHECK_SECONDS = 1.0
"""Seconds between two checks."""
LONGEST_SECONDS = 2.0
"""Seconds that count at most between two checks: if more have passed, this process was stopped."""
FORM = re.compile(rb"step +-?\d+\ntimeout +(\d+\.\d) s, call +\d+\n")
"""What ranks write (`PROGRESS`), except those whose timeout is infinite."""


@dataclass
class HangingRanks:
    """The ranks of a node in one attempt."""

    files: Sequence[Path]
    """The files with their progress and stacks."""
    checked: float = field(default_factory=time.monotonic)
    written: dict[Path, tuple[bytes, float]] = field(default_factory=dict)
    """What each file contained, and for how many seconds it has not changed."""

    def found(self) -> bool:
        """Whether a rank hangs: for its timeout, and `GRACE` more in which all ranks write their stacks."""
        now = time.monotonic()
        if (passed := now - self.checked) < CHECK_SECONDS:
            return False
        self.checked = now
        return sum(self._hangs(path, min(passed, LONGEST_SECONDS)) for path in self.files) > 0

    def _hangs(self, path: Path, passed: float) -> bool:
        try:
            with path.open("rb") as file:
                progress = file.read(len(PROGRESS % (0, 0.0, 0)))
        except OSError:  # not started, or the disk does not answer
            return False
        before, silent = self.written.get(path, (b"", 0.0))
        silent = 0.0 if progress != before else silent + passed * _is_writable(path)
        self.written[path] = progress, silent
        limit = FORM.fullmatch(progress)
        return limit is not None and silent > float(limit[1]) + GRACE


def _is_writable(path: Path) -> bool:
    """Whether its disk accepts a change of the file, of its times."""
    try:
        os.utime(path)
    except OSError:
        return False
    return True
