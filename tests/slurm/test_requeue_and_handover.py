"""If SLURM does not requeue a job, exactly one other job resumes the run, and no job is left when the run ends."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from drumbeat.configs.run.bad_nodes import remembered
from drumbeat.configs.run.records import Job, NodeUp, Status
from tests.launch import fake_torchrun
from tests.processes import alive, until
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Submit
from tests.slurm.kinds import on
from tests.slurm.runs import NO_REQUEUE

pytestmark = pytest.mark.slurm


@pytest.fixture
def submitted(submitted: Submit) -> Submit:
    """Submits to the partition whose jobs are cancelled when they are preempted."""
    return partial(submitted, partition="cancel")


@on("cgroup", "linuxproc-accounts")
def test_the_next_job_resumes_after_the_time_limit(submitted: Submit) -> None:
    job = submitted(sbatch=NO_REQUEUE)
    next_job = job.successor()
    job.up()
    job.cluster.run("scancel", "--signal=USR2", job.job_id)
    job.cluster.wait(job.job_id, "FAILED")
    job.up(1)
    assert job.verdict(0) == "stopped at step 1: the job's time limit is near"
    assert Job.require(job.run.job).id == next_job
    last = job.successor()
    assert last != next_job
    job.let_finish()
    job.cluster.wait(next_job, "COMPLETED")
    job.all_gone()
    assert (job.state(), job.cluster.state(last)) == ("finished", "CANCELLED")
    assert not (job.run.attempts / "002").exists()


@on("pgid", "cgroup-accounts")
def test_a_cancelled_run_has_no_next_job(submitted: Submit) -> None:
    job = submitted(sbatch=NO_REQUEUE)
    next_job = job.successor()
    job.up()
    job.cluster.run("scancel", job.job_id)
    job.all_gone()
    assert job.cluster.state(next_job) in ("CANCELLED", "COMPLETED"), "taken out of the queue, or it had nothing to do"
    assert (job.state(), job.verdict(0)) == ("cancelled", "stopped at step 1: the job was cancelled")
    assert not (job.run.attempts / "001").exists()


@on("cgroup", "linuxproc-accounts")
def test_a_failed_run_has_no_next_job(submitted: Submit) -> None:
    job = submitted(sbatch=NO_REQUEUE)
    next_job = job.successor()
    job.up()
    job.fail(1, "a bad picture")
    job.cluster.wait(job.job_id, "FAILED")
    job.all_gone()
    assert (job.state(), job.cluster.state(next_job)) == ("failed", "CANCELLED")


@on("linuxproc", "cgroup-accounts")
def test_the_next_job_leaves_a_run_that_was_resumed_by_hand(submitted: Submit) -> None:
    job = submitted(sbatch=NO_REQUEUE, cpus=2)
    next_job = job.successor()
    job.up()
    job.cluster.run("scontrol", "hold", next_job)
    job.cluster.run("scancel", "--signal=USR2", job.job_id)
    job.cluster.wait(job.job_id, "FAILED")
    job.resume()
    job.up(1)
    job.cluster.run("scontrol", "release", next_job)
    job.cluster.wait(next_job, "COMPLETED")
    assert Job.require(job.run.job).id == job.job_id
    job.let_finish()
    job.cluster.wait(job.job_id, "COMPLETED")
    job.all_gone()


@on("pgid", "cgroup-accounts")
def test_a_job_cancelled_by_preemption_requeues_itself(submitted: Submit) -> None:
    job = submitted()
    job.up()
    assert not Job.require(job.run.job).next_job
    urgent = job.cluster.fill("urgent", "true")
    job.cluster.wait(urgent, "COMPLETED")
    job.up_again(1)
    assert job.verdict(0) == "stopped at step 1: preempted"
    job.finish()


@on("linuxproc", "cgroup-accounts")
def test_the_next_job_resumes_after_preemption(submitted: Submit) -> None:
    job = submitted(sbatch=NO_REQUEUE)
    next_job = job.successor()
    job.up()
    job.cluster.fill("urgent", "true")
    job.up(1)
    assert job.cluster.state(job.job_id) == "PREEMPTED"
    assert job.verdict(0) == "stopped at step 1: preempted"
    job.let_finish()
    job.cluster.wait(next_job, "COMPLETED")
    job.all_gone()


@on("cgroup", "pgid-accounts")
def test_without_scontrol_on_the_nodes(submitted: Submit, tmp_path: Path) -> None:
    """What its nodes have on their PATH: all but scontrol."""
    (programs := tmp_path / "bin").mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for program in Path(folder).glob("*"):
            if program.name != "scontrol" and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    job = submitted(setup=[f"export PATH={programs}"])
    next_job = job.successor()
    job.up()
    job.cluster.run("scancel", "--signal=USR2", job.job_id)
    job.cluster.wait(job.job_id, "FAILED")
    job.up(1)
    job.let_finish()
    job.cluster.wait(next_job, "COMPLETED")
    job.all_gone()
    assert job.state() == "finished"


@on("cgroup", "pgid-accounts")
def test_launchers_in_a_container(submitted: Submit, tmp_path: Path) -> None:
    """It has neither scontrol nor sbatch; the job's script, which is outside, has the job queued again."""
    (programs := tmp_path / "bin").mkdir()
    (programs / "sh").symlink_to("/bin/sh")
    job = submitted(prefix=f"env PATH={programs}")
    job.up()
    assert not Job.require(job.run.job).next_job
    job.cluster.run("scancel", "--signal=USR2", job.job_id)
    job.up_again(1)
    job.finish()


@on("cgroup", "linuxproc-accounts")
@pytest.mark.parametrize("node", [0, 1])
def test_one_killed_launcher_restarts_all(submitted: Submit, node: int) -> None:
    """The launchers of all nodes are started again, in the same allocation."""
    job = submitted()
    before = job.up()
    os.kill(job.launcher(node), signal.SIGKILL)
    job.up(1)
    assert not [pid for pid in before.values() if alive(pid)]
    assert f"n{node + 1}" in job.verdict(0)
    assert "was killed, or the node failed; there is no checkpoint" in job.verdict(0)
    job.finish()
    assert job.restarts() == 0


@on("linuxproc", "pgid-accounts")
def test_launchers_killed_each_time_fail_the_run(submitted: Submit) -> None:
    job = submitted(restarts=1)
    for attempt in (0, 1):
        job.up(attempt)
        os.kill(job.launcher(0, attempt), signal.SIGKILL)
    job.cluster.wait(job.job_id, "FAILED")
    assert job.state() == "failed"
    assert job.verdict(1).endswith("given up: 2 times in a row without a newer checkpoint")
    assert Status.require(job.run.status).verdict == job.verdict(1)
    assert fake_torchrun.pids(job.run.path, 2) == {}


@pytest.mark.slow
@pytest.mark.parametrize("requeue", [True, False], ids=["requeue", "successor"])
@on("linuxproc", among=("cgroup", "linuxproc", "pgid-accounts"))
def test_a_node_fails(cluster: Cluster, submitted: Submit, requeue: bool) -> None:
    """The run goes on elsewhere. What the failed node had started, which SLURM no longer reaches, ends by itself."""
    with cluster.reconfigured(SlurmdTimeout=10):
        job = submitted(partition="wide", sbatch={} if requeue else NO_REQUEUE)
        before = job.up()
        cluster.kill_daemon("n2")
        until(lambda: cluster.state(job.job_id) in ("PENDING", "NODE_FAIL"))
    if requeue:
        job.up_again(1)
    else:
        job.up(1)
    until(lambda: not [pid for pid in before.values() if alive(pid)])
    assert {NodeUp.require(job.run.attempt(1).node_up(node)).host for node in (0, 1)} == {"n1", "n3"}
    job.let_finish()
    job.all_gone()
    assert (job.state(), job.attempts()) == ("finished", 2)
    silent = not job.run.attempt(0).node_down(1).exists()  # its launcher may outlive SLURM's daemon, and report
    assert [bad.node for bad in remembered(job.folder)] == ["n2"] * silent
    cluster.start_daemon("n2")
    cluster.await_nodes()


@pytest.mark.parametrize("requeue", [True, pytest.param(False, marks=pytest.mark.matrix)], ids=["requeue", "successor"])
@on("cgroup", "linuxproc-accounts", among=("cgroup", "linuxproc-accounts", "pgid"))
def test_a_node_is_taken_out_of_the_job(submitted: Submit, requeue: bool) -> None:
    """By a user or an administrator. The run does not fit into the rest, and continues on as many nodes as before."""
    job = submitted(sbatch={} if requeue else NO_REQUEUE)
    before = job.up()
    job.cluster.run("scontrol", "update", f"jobid={job.job_id}", "numnodes=1")
    if requeue:
        until(lambda: job.cluster.state(job.job_id) == "PENDING")
        status = Status.require(job.run.status)
        assert (status.state, status.verdict) == (
            "preempted", f"SLURM job {job.job_id} has 1 of its 2 nodes left; there is no checkpoint")
        job.up_again(1)
    else:
        job.up(1)
    assert not [pid for pid in before.values() if alive(pid)]
    assert {NodeUp.require(job.run.attempt(1).node_up(node)).host for node in (0, 1)} == {"n1", "n2"}
    job.let_finish()
    job.all_gone()
    assert (job.state(), job.attempts()) == ("finished", 2)
