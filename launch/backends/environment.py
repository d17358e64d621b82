"""What the processes that a backend starts inherit of this one: its environment, and its standard files."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.plan.job import leaked


@contextmanager
def environment(plan: JobPlan, given: Collection[str] = ()) -> Iterator[None]:
    """This process's environment as the run's processes should inherit it: nothing leaked, everything
    planned, and nothing of what the job is `given` where it starts."""
    before = dict(os.environ)
    for name in leaked(before, given):
        del os.environ[name]
    os.environ.update(plan.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def standard_files(log: Path) -> Iterator[None]:
    """Programs started inside read nothing and write to `log`, so a pipe this process writes to can be closed."""
    sys.stdout.flush()
    before = [os.dup(number) for number in (0, 1, 2)]
    nothing, file = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for opened, number in ((nothing, 0), (file, 1), (file, 2)):
            os.dup2(opened, number)
        yield
    finally:
        for kept, number in zip(before, (0, 1, 2), strict=True):
            os.dup2(kept, number)
        for opened in (*before, nothing, file):
            os.close(opened)
