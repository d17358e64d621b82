"""How long the imports of this process took, and what a fork server tells its ranks about its own."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from drumbeat.configs.run.rank_records import Imports

VARIABLE = "DRUMBEAT_IMPORTS"
"""The environment variable with the record, for the ranks of the first attempt that a fork server starts."""

PROCESS = Path("/proc/self")


def since_start() -> Imports:
    """From the start of this process, which has done nothing else and has one thread. It waited for files while it
    neither ran nor was ready to run (man 5 proc: `starttime` of stat; the kernel's Documentation/scheduler/
    sched-stats.rst: schedstat)."""
    ticks = int((PROCESS / "stat").read_text().rpartition(")")[2].split()[19])
    seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    try:
        ran, ready, _ = map(int, (PROCESS / "schedstat").read_text().split())
    except OSError:  # a kernel without it
        ran, ready = time.process_time_ns(), 0
    return Imports(seconds=seconds, waited=max(0.0, seconds - (ran + ready) / 1e9), folder=sys.prefix)


def variables(imports: Imports) -> dict[str, str]:
    """The environment variable for ranks."""
    return {VARIABLE: json.dumps(imports.as_json())}


def given() -> Imports | None:
    """The imports of the fork server of this rank, if this attempt has waited for them."""
    text = os.environ.get(VARIABLE)
    return Imports.parse(json.loads(text)) if text else None
