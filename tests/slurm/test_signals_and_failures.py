"""The node launcher on a real cluster: whatever SLURM sends, and whoever is killed, the run goes on or leaves in order.

With a fake torchrun, so that all of this is tested under every ProctrackType; the real torchrun is tested in
tests/slurm/test_training.py.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from drumbeat.configs.run.records import AttemptStart
from tests.launch import fake_torchrun
from tests.processes import alive, until
from tests.slurm.conftest import Submit
from tests.slurm.kinds import on
from tests.slurm.layout import CPUS
from tests.slurm.runs import TIME_LIMIT

pytestmark = pytest.mark.slurm


@on("cgroup", "pgid-accounts")
def test_the_signal_ahead_of_the_time_limit(submitted: Submit) -> None:
    job = submitted()
    job.up()
    job.cluster.run("scancel", "--signal=USR2", job.job_id)  # to the steps, as --signal=USR2@N sends it at its time
    job.up_again(1)
    assert job.verdict(0) == "stopped at step 1: the job's time limit is near"
    job.finish()


@on("cgroup-accounts", "linuxproc")
def test_preemption_with_a_grace_time(submitted: Submit) -> None:
    job = submitted()
    job.up()
    urgent = job.cluster.fill("urgent", "true")
    job.cluster.wait(urgent, "COMPLETED")
    job.up_again(1)
    assert job.verdict(0) == "stopped at step 1: preempted"
    job.finish()


@on("pgid", "cgroup-accounts")
def test_requeued_by_an_administrator(submitted: Submit) -> None:
    """So is preemption without a GraceTime. SLURM sends SIGTERM, and SIGKILL after KillWait."""
    job = submitted()
    job.up()
    job.cluster.run("scontrol", "requeue", job.job_id)
    job.up_again(1)
    assert job.verdict(0) == "stopped at step 1: SLURM requeued the job"
    job.finish()


@on("linuxproc", "pgid-accounts")
def test_a_cancelled_job_saves_and_stays_cancelled(submitted: Submit) -> None:
    job = submitted()
    job.up()
    job.cluster.run("scancel", job.job_id)
    job.cluster.wait(job.job_id, "CANCELLED")
    assert (job.state(), job.verdict(0)) == ("cancelled", "stopped at step 1: the job was cancelled")
    assert job.left() == []
    assert job.restarts() == 0


@on("cgroup", "linuxproc-accounts")
def test_a_rank_and_then_an_agent_is_killed_on_the_second_node(submitted: Submit) -> None:
    """Both nodes take the next attempt together, on another port, in the same allocation."""
    job = submitted()
    for attempt, victim in enumerate(("rank1", "agent1")):
        before = job.up(attempt)
        os.kill(before[victim], signal.SIGKILL)
        job.up(attempt + 1)
        assert not [pid for pid in before.values() if alive(pid)]
    job.finish()
    assert (job.verdict(0), job.verdict(1)) == (
        "rank 1 on n2 was killed (SIGKILL; out of memory?); there is no checkpoint",
        "torchrun on n2 was killed (SIGKILL; out of memory?); there is no checkpoint")
    ports = {AttemptStart.require(job.run.attempt(number).launch).port for number in range(3)}
    assert (len(ports), job.restarts()) == (3, 0)


@on("pgid", "linuxproc-accounts")
def test_two_runs_on_the_same_nodes(submitted: Submit, tmp_path: Path) -> None:
    jobs = [submitted(tmp_path / name, cpus=CPUS // 2) for name in ("one", "two")]
    pids = [set(job.up().values()) for job in jobs]
    assert not pids[0] & pids[1]
    os.kill(jobs[0].up()["rank1"], signal.SIGKILL)
    jobs[0].up(1)
    assert not jobs[1].run.attempt(1).path.exists()
    for job in jobs:
        job.finish()


@on("cgroup", "pgid-accounts")
def test_a_stop_in_the_middle_of_the_start(submitted: Submit) -> None:
    job = submitted()
    until(job.run.attempt(0).path.exists)
    job.run.attempt(0).request_stop("stopped")
    job.cluster.wait(job.job_id, "COMPLETED")
    job.seen |= set(fake_torchrun.pids(job.run.path, 0).values())
    assert job.state() == "stopped"
    assert job.left() == []


@on("pgid", "linuxproc-accounts")
def test_files_that_appear_late(submitted: Submit) -> None:
    """As they may on another machine's disk."""
    job = submitted()
    elsewhere = job.run.plan.rename(job.run.path / "late")
    job.cluster.wait(job.job_id, "RUNNING")
    until(lambda: list(job.run.submitit.glob("*_1_log.out")))
    time.sleep(3)
    elsewhere.rename(job.run.plan)
    job.up()
    job.finish()


@on("cgroup", "linuxproc-accounts")
def test_a_job_that_is_submitted_from_within_another(submitted: Submit,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """What that one has in its environment would be fatal."""
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "77", "SLURM_MEM_PER_CPU": "7", "SLURM_NNODES": "9",
                        "SLURM_CPUS_PER_TASK": "3", "SLURM_CPU_BIND": "map_cpu:0",
                        "SLURM_JOB_DEPENDENCY": "afternotok:5", "SLURM_RESTART_COUNT": "4"}.items():
        monkeypatch.setenv(name, value)
    job = submitted()
    job.up()
    job.finish()


@on("linuxproc", "cgroup-accounts")
def test_a_failed_run_is_a_failed_job(submitted: Submit) -> None:
    job = submitted()
    job.fail(1, "a bad picture")
    job.cluster.wait(job.job_id, "FAILED")
    assert job.state() == "failed"
    assert job.verdict(1).endswith("a bad picture; there is no checkpoint; given up: the same error again")


@on("linuxproc", "cgroup-accounts")
def test_the_time_limit_without_a_signal(submitted: Submit) -> None:
    """The launcher looks at the clock itself."""
    job = submitted(time_minutes=1, signal_seconds=45, sbatch={"signal": "CONT@1"})
    until(job.run.attempt(0).verdict.exists)
    assert re.fullmatch(TIME_LIMIT, job.verdict(0))
    job.let_finish()  # ahead of the next attempt, whose time may be up as soon
    job.cluster.start_again(job.job_id)
    job.cluster.wait(job.job_id, "COMPLETED")
    assert (job.state(), job.restarts()) == ("finished", 1)
