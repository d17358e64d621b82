"""Where SLURM does not queue a job again, another one goes on with the run: once, and none is left when it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.run.records import Job, NodeUp, Status
from tests.launch import standin
from tests.launch.node.test_launcher import alive, until
from tests.slurm.cluster import Cluster
from tests.slurm.matrix import on
from tests.slurm.test_cluster import submit
from tests.slurm.test_launcher import Submitted, submitted  # noqa: F401

pytestmark = pytest.mark.slurm

NO_REQUEUE = {"requeue": False, "no-requeue": True}
"""What sites do that do not have jobs queued again: here by options, elsewhere by JobRequeue=0 or a plugin."""


def successor(job: Submitted) -> str:
    """The id of the job that follows, once it is queued."""
    until(lambda: Job.require(job.run.job).next_job)
    return str(Job.require(job.run.job).next_job)


def gone(job: Submitted) -> bool:
    """Whether no job of the cluster is pending or at work."""
    return not job.cluster.run("squeue", "--noheader").strip()


Start = Callable[..., Submitted]


@on("cgroup", "linuxproc-accounts", preempt="CANCEL", grace=0)
def test_the_time_limit(submitted: Start) -> None:  # noqa: F811
    job = submitted(sbatch=NO_REQUEUE)
    next_job = successor(job)
    job.up()
    job.cluster.run("scancel", "--signal=USR2", job.job)
    job.cluster.wait(job.job, "FAILED")
    job.up(1)
    assert job.words(0) == "stopped at step 1: the job's time limit is near"
    assert Job.require(job.run.job).id == next_job
    last = successor(job)
    assert last != next_job
    (job.run.path / "standin" / "finish").touch()
    job.cluster.wait(next_job, "COMPLETED")
    until(lambda: gone(job))
    assert (job.state(), job.cluster.state(last)) == ("finished", "CANCELLED")
    assert not (job.run.attempts / "002").exists()


@on("pgid", "cgroup-accounts", preempt="CANCEL", grace=0)
def test_cancelled_is_cancelled(submitted: Start) -> None:  # noqa: F811
    job = submitted(sbatch=NO_REQUEUE)
    next_job = successor(job)
    job.up()
    job.cluster.run("scancel", job.job)
    until(lambda: gone(job))
    assert job.cluster.state(next_job) in ("CANCELLED", "COMPLETED"), "taken out of the queue, or it had nothing to do"
    assert (job.state(), job.words(0)) == ("cancelled", "stopped at step 1: the job was cancelled")
    assert not (job.run.attempts / "001").exists()


@on("cgroup", "linuxproc-accounts", preempt="CANCEL", grace=0)
def test_a_run_that_is_given_up_leaves_none(submitted: Start) -> None:  # noqa: F811
    job = submitted(sbatch=NO_REQUEUE)
    next_job = successor(job)
    job.up()
    (job.run.path / "standin" / "fail1").write_text("a bad picture")
    job.cluster.wait(job.job, "FAILED")
    until(lambda: gone(job))
    assert (job.state(), job.cluster.state(next_job)) == ("failed", "CANCELLED")


@on("linuxproc", "cgroup-accounts", preempt="CANCEL", grace=0)
def test_a_run_that_somebody_resumed_is_left_to_that_job(submitted: Start) -> None:  # noqa: F811
    job = submitted(sbatch=NO_REQUEUE, cpus=2)
    next_job = successor(job)
    job.up()
    job.cluster.run("scontrol", "hold", next_job)
    job.cluster.run("scancel", "--signal=USR2", job.job)
    job.cluster.wait(job.job, "FAILED")
    job.resume()
    job.up(1)
    job.cluster.run("scontrol", "release", next_job)
    job.cluster.wait(next_job, "COMPLETED")
    assert Job.require(job.run.job).id == job.job
    (job.run.path / "standin" / "finish").touch()
    job.cluster.wait(job.job, "COMPLETED")
    until(lambda: gone(job))


@on("pgid", "cgroup-accounts", preempt="CANCEL", grace=0)
def test_preempted_by_cancelling_it_queues_itself_again(submitted: Start) -> None:  # noqa: F811
    job = submitted()
    job.up()
    assert not Job.require(job.run.job).next_job
    urgent = submit(job.cluster, "urgent", "true")
    job.cluster.wait(urgent, "COMPLETED")
    job.up_again(1)
    assert job.words(0) == "stopped at step 1: preempted"
    job.finish()


@on("linuxproc", "cgroup-accounts", preempt="CANCEL", grace=0)
def test_preempted_by_cancelling_where_it_may_not(submitted: Start) -> None:  # noqa: F811
    job = submitted(sbatch=NO_REQUEUE)
    next_job = successor(job)
    job.up()
    submit(job.cluster, "urgent", "true")
    job.up(1)
    assert job.cluster.state(job.job) == "PREEMPTED"
    assert job.words(0) == "stopped at step 1: preempted"
    (job.run.path / "standin" / "finish").touch()
    job.cluster.wait(next_job, "COMPLETED")
    until(lambda: gone(job))


@on("cgroup", "pgid-accounts", preempt="CANCEL", grace=0)
def test_without_scontrol_on_the_nodes(submitted: Start, tmp_path: Path) -> None:  # noqa: F811
    """What its nodes have on their PATH: all but scontrol."""
    (programs := tmp_path / "bin").mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for program in Path(folder).glob("*"):
            if program.name != "scontrol" and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    job = submitted(setup=[f"export PATH={programs}"])
    next_job = successor(job)
    job.up()
    job.cluster.run("scancel", "--signal=USR2", job.job)
    job.cluster.wait(job.job, "FAILED")
    job.up(1)
    (job.run.path / "standin" / "finish").touch()
    job.cluster.wait(next_job, "COMPLETED")
    until(lambda: gone(job))
    assert job.state() == "finished"


@on("cgroup", "pgid-accounts", preempt="CANCEL", grace=0)
def test_from_within_a_container(submitted: Start, tmp_path: Path) -> None:  # noqa: F811
    """It has neither scontrol nor sbatch; the job's script, which is outside, has the job queued again."""
    (programs := tmp_path / "bin").mkdir()
    (programs / "sh").symlink_to("/bin/sh")
    job = submitted(prefix=f"env PATH={programs}")
    job.up()
    assert not Job.require(job.run.job).next_job
    job.cluster.run("scancel", "--signal=USR2", job.job)
    job.up_again(1)
    job.finish()


@on("cgroup", "linuxproc-accounts", preempt="CANCEL", grace=0)
@pytest.mark.parametrize("node", [0, 1])
def test_a_launcher_is_killed(submitted: Start, node: int) -> None:  # noqa: F811
    """The launchers of all nodes are started again, in the same allocation."""
    job = submitted()
    before = job.up()
    os.kill(job.launcher(node), signal.SIGKILL)
    job.up(1)
    assert not [pid for pid in before.values() if alive(pid)]
    assert f"n{node + 1}" in job.words(0)
    assert "was killed, or the node failed; there is no checkpoint" in job.words(0)
    job.finish()
    assert job.restarts() == 0


@on("cgroup", "pgid-accounts", preempt="CANCEL", grace=0)
def test_a_launcher_that_is_killed_each_time(submitted: Start) -> None:  # noqa: F811
    job = submitted(restarts=1)
    for attempt in (0, 1):
        job.up(attempt)
        os.kill(job.launcher(0, attempt), signal.SIGKILL)
    job.cluster.wait(job.job, "FAILED")
    assert job.state() == "failed"
    assert job.words(1).endswith("given up: 2 times in a row without a newer checkpoint")
    assert Status.require(job.run.status).verdict == job.words(1)
    assert standin.pids(job.run.path, 2) == {}


@pytest.mark.slow
@pytest.mark.parametrize("requeue", [True, False], ids=["requeue", "successor"])
@on("linuxproc", among=("cgroup", "linuxproc", "pgid-accounts"), slurmd_timeout=10, nodes=3)
def test_a_node_fails(cluster: Cluster, submitted: Start, requeue: bool) -> None:  # noqa: F811
    """The run goes on elsewhere. What the failed node had started, which SLURM no longer reaches, ends by itself."""
    job = submitted(sbatch={} if requeue else NO_REQUEUE)
    before = job.up()
    job.cluster.kill_daemon("n2")
    until(lambda: job.cluster.state(job.job) in ("PENDING", "NODE_FAIL"))
    if requeue:
        job.up_again(1)
    else:
        job.up(1)
    until(lambda: not [pid for pid in before.values() if alive(pid)])
    assert {NodeUp.require(job.run.attempt(1).node_up(node)).host for node in (0, 1)} == {"n1", "n3"}
    (job.run.path / "standin" / "finish").touch()
    until(lambda: gone(job))
    assert job.state() == "finished"
    assert len(list(job.run.attempts.iterdir())) == 2
    job.cluster.start_daemon("n2")
    until(lambda: "n2" in job.cluster.run("sinfo", "--noheader", "--states=idle", "--Node", "--format=%N"))
