"""Run folders for tests, with the files that a test needs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan, Topology
from drumbeat.configs.run.records import BackendName, Heartbeat, Job, State, Status
from drumbeat.configs.site import Site

AS_ANOTHER = """
import os
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
"""
"""The start of a program: the rest runs as user nobody, if the test has the right to switch, and can import nothing
more."""


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder that other users may read, unlike those of pytest."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def write_plan(run: RunDir, **changes: Any) -> JobPlan:
    """Creates the run folder, and writes a plan of two ranks on this machine, with changes."""
    topology = Topology(nodes=1, ranks_per_node=2, device="cpu", cpus_per_rank=1)
    plan = JobPlan(**{"run_dir": str(run.path), "name": run.path.parent.name, "backend": "local", "topology": topology,
                      "site": Site(), "environment": {}, "folder": str(run.path.parent), "restarts": 3, **changes})
    run.path.mkdir(parents=True, exist_ok=True)
    plan.write(run.plan)
    return plan


def write_job(run: RunDir, backend: BackendName = "local", **fields: Any) -> None:
    """Writes a job.json."""
    Job(backend=backend, **fields).write(run.job)


def write_state(run: RunDir, state: State, verdict: str = "", *, ago: float = 0.0) -> None:
    """Writes the state of a run, as its newest attempt would have `ago` seconds ago."""
    Status(state=state, attempt=run.newest_number(), verdict=verdict, time=time.time() - ago).write(run.status)
    _date_back(run.status, ago)


def write_heartbeat(run: RunDir, *, ago: float = 0.0, **fields: Any) -> None:
    """Writes the heartbeat of the newest attempt `ago` seconds ago; creates the first attempt if there is none."""
    attempt = run.newest_attempt() or run.claim_attempt()
    Heartbeat(time=time.time() - ago, **fields).write(attempt.heartbeat)
    _date_back(attempt.heartbeat, ago)


def _date_back(path: Path, seconds: float) -> None:
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)
