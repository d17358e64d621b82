"""Time limits that move, that come before anything is saved, and that are short."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from drumbeat.launch.slurm.client import job_fields
from tests.processes import until
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Allocate, Submit
from tests.slurm.kinds import on
from tests.slurm.layout import CPUS
from tests.slurm.runs import AllocationRun

pytestmark = pytest.mark.slurm


def end_of(job: str) -> float:
    return datetime.fromisoformat(job_fields(job)["EndTime"]).timestamp()


@pytest.mark.slow
@on("cgroup", among=("cgroup", "linuxproc", "pgid-accounts"))
def test_an_extended_limit_and_a_suspension_past_the_end(submitted: Submit, tmp_path: Path) -> None:
    """Both jobs run on after their old end, and lose nothing."""
    extended, suspended = jobs = [
        submitted(tmp_path / name, cpus=CPUS // 2, time_minutes=1, signal_seconds=5) for name in ("one", "two")]
    for job in jobs:
        job.up()
    end = max(end_of(job.job_id) for job in jobs)
    extended.cluster.run("scontrol", "update", f"jobid={extended.job_id}", "timelimit=30")
    suspended.cluster.run("scontrol", "suspend", suspended.job_id)
    until(lambda: time.time() > end + 8)
    suspended.cluster.run("scontrol", "resume", suspended.job_id)
    until(lambda: time.time() > end + 12)
    for job in jobs:
        assert not job.run.attempt(0).stop.exists()
        job.finish()
        assert (job.attempts(), job.restarts()) == (1, 0)


@pytest.mark.matrix  # two limits of a minute, and SLURM looks every half a minute
@on("cgroup", among=("cgroup", "linuxproc", "pgid-accounts"))
def test_a_limit_that_comes_before_a_save_on_two_nodes(submitted: Submit) -> None:
    """The job is requeued, and the run is given up when that does not help."""
    job = submitted(time_minutes=1, restarts=1)
    (job.run.path / "fake" / "saving").touch()
    job.up()
    until(job.run.attempt(0).verdict.exists)
    reason = "stopped without saving: the job's time limit came before its first step; there is no checkpoint"
    assert job.verdict(0) == reason
    job.up_again(1)
    job.cluster.wait(job.job_id, ("FAILED", "TIMEOUT"))
    assert job.state() == "failed"
    assert job.verdict(1) == (f"{reason}; given up: 2 times in a row without a newer checkpoint; give it more "
                              "time_minutes in the profile")
    assert job.left() == []


@on("cgroup")
def test_a_short_allocation_is_used(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    """The site's 120 s for a stop would leave nothing of its two minutes."""
    run = AllocationRun(cluster, tmp_path, allocate("--time=2"))
    run.up()
    until(lambda: time.time() > run.run.attempt(0).launch.stat().st_mtime + 10)
    assert not run.run.attempt(0).stop.exists()
    run.finish()
