"""What the processes that a backend starts inherit from this one: environment and standard files."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.plan.inherited import not_inherited


@contextmanager
def environment(plan: JobPlan, job_variables: Collection[str] = (), script: str = "") -> Iterator[None]:
    """Changes this process's environment to what the run's processes inherit: with the variables of the plan, without
    those that `not_inherited` names for these `job_variables` and this `script`."""
    before = dict(os.environ)
    for name in not_inherited(before, job_variables, script):
        del os.environ[name]
    os.environ.update(plan.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def redirected_output(log: Path) -> Iterator[None]:
    """Processes started inside read nothing and write to `log`, so that they do not keep this process's pipes open."""
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
