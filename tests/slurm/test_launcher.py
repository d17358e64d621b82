"""The node launcher on a real cluster: whatever SLURM sends, and whoever is killed, the run goes on or leaves in order.

With a stand-in in torchrun's place, so that all of this is tried under every ProctrackType; tests/slurm/test_run.py has
the real thing.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs import importing
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan, Topology
from drumbeat.configs.run.records import AttemptStart, Status, Verdict
from drumbeat.configs.schema import Site
from drumbeat.launch.backends.slurm import Slurm
from tests.launch import standin
from tests.launch.node.test_launcher import ROOT, alive, until
from tests.runs import write_job, write_state
from tests.slurm.cluster import Cluster
from tests.slurm.matrix import on
from tests.slurm.test_cluster import submit

pytestmark = pytest.mark.slurm


class Submitted:
    """A run of one stand-in rank on each of two nodes, submitted as the command line does it."""

    def __init__(self, cluster: Cluster, folder: Path, restarts: int = 3, cpus: int = 8, **site: Any) -> None:
        self.cluster = cluster
        self.run = RunDir(folder / "run")
        folder.mkdir(exist_ok=True)
        (self.run.path / "standin").mkdir(parents=True)
        topology = Topology(nodes=2, ranks_per_node=1, device="cpu", cpus_per_rank=cpus)
        plan = JobPlan(run_dir=str(self.run.path), name="standin", backend="slurm", topology=topology,
                       site=Site(**{"time_minutes": 10, **site}), environment=importing.environment(str(ROOT), []),
                       folder=str(folder), restarts=restarts)
        self.request = Slurm().request(plan)
        replace(plan, python=standin.install(folder)).write(self.run.plan)
        self.resume()
        self.seen: set[int] = set()

    def resume(self) -> None:
        """Submits it, for the first time or once more."""
        write_state(self.run, "pending")
        write_job(self.run, "slurm")
        self.job = str(Slurm().submit(self.request).id)
        write_job(self.run, "slurm", id=self.job)

    def up(self, attempt: int = 0) -> dict[str, int]:
        """Waits until an attempt is up; who is who."""
        until(lambda: {"helper0", "helper1"} <= standin.pids(self.run.path, attempt).keys())
        pids = standin.pids(self.run.path, attempt)
        self.seen |= set(pids.values())
        return pids

    def up_again(self, attempt: int) -> None:
        self.cluster.start_again(self.job)
        self.up(attempt)
        assert self.restarts() == 1

    def finish(self) -> None:
        (self.run.path / "standin" / "finish").touch()
        self.cluster.wait(self.job, "COMPLETED")
        assert self.state() == "finished"
        assert self.left() == []
        assert standin.heard(self.run.path) == {}, "none but the launcher may hear signals"

    def restarts(self) -> int:
        """How often SLURM has queued the job again."""
        found = re.search(r"Restarts=(\d+)", self.cluster.run("scontrol", "show", "job", self.job))
        return int(found[1]) if found else 0

    def launcher(self, node: int, attempt: int = 0) -> int:
        """The process id of a node's launcher: the parent of what starts torchrun."""
        process = standin.pids(self.run.path, attempt)[f"agent{node}"]
        for _ in range(2):
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        return process

    def words(self, attempt: int) -> str:
        return Verdict.require(self.run.attempt(attempt).verdict).message

    def state(self) -> str:
        return Status.require(self.run.status).state

    def left(self) -> list[int]:
        return [pid for pid in self.seen if alive(pid)]


@pytest.fixture
def submitted(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., Submitted]]:
    made: list[Submitted] = []

    def make(folder: Path = tmp_path, **site: Any) -> Submitted:
        made.append(Submitted(cluster, folder, **site))
        return made[-1]

    yield make
    for job in made:
        cluster.run("scancel", "--name=standin")
        until(lambda: not cluster.run("squeue", "--noheader", "--name=standin"))
        assert job.left() == []


@on("cgroup", "pgid-accounts")
def test_the_signal_ahead_of_the_time_limit(submitted: Callable[..., Submitted]) -> None:
    job = submitted()
    job.up()
    job.cluster.run("scancel", "--signal=USR2", job.job)  # to the steps, as --signal=USR2@N sends it at its time
    job.up_again(1)
    assert job.words(0) == "stopped at step 1: the job's time limit is near"
    job.finish()


@on("cgroup-accounts", "linuxproc")
def test_preemption_with_a_grace_time(submitted: Callable[..., Submitted]) -> None:
    job = submitted()
    job.up()
    urgent = submit(job.cluster, "urgent", "true")
    job.cluster.wait(urgent, "COMPLETED")
    job.up_again(1)
    assert job.words(0) == "stopped at step 1: preempted"
    job.finish()


@on("pgid", "cgroup-accounts")
def test_requeued_by_an_administrator(submitted: Callable[..., Submitted]) -> None:
    """So is preemption without a GraceTime. SLURM sends SIGTERM, and SIGKILL after KillWait."""
    job = submitted()
    job.up()
    job.cluster.run("scontrol", "requeue", job.job)
    job.up_again(1)
    assert job.words(0) == "stopped at step 1: SLURM requeued the job"
    job.finish()


@on("linuxproc", "pgid-accounts")
def test_a_cancelled_job_saves_and_stays_cancelled(submitted: Callable[..., Submitted]) -> None:
    job = submitted()
    job.up()
    job.cluster.run("scancel", job.job)
    job.cluster.wait(job.job, "CANCELLED")
    assert (job.state(), job.words(0)) == ("cancelled", "stopped at step 1: the job was cancelled")
    assert job.left() == []
    assert job.restarts() == 0


@on("cgroup", "linuxproc-accounts")
def test_a_rank_and_then_an_agent_is_killed_on_the_second_node(submitted: Callable[..., Submitted]) -> None:
    """Both nodes take the next attempt together, on another port, in the same allocation."""
    job = submitted()
    for attempt, victim in enumerate(("rank1", "agent1")):
        before = job.up(attempt)
        os.kill(before[victim], signal.SIGKILL)
        job.up(attempt + 1)
        assert not [pid for pid in before.values() if alive(pid)]
    job.finish()
    assert (job.words(0), job.words(1)) == (
        "rank 1 on n2 was killed (SIGKILL; out of memory?); there is no checkpoint",
        "torchrun on n2 was killed (SIGKILL; out of memory?); there is no checkpoint")
    ports = {AttemptStart.require(job.run.attempt(number).launch).port for number in range(3)}
    assert (len(ports), job.restarts()) == (3, 0)


@on("pgid", "linuxproc-accounts")
def test_two_runs_on_the_same_nodes(submitted: Callable[..., Submitted], tmp_path: Path) -> None:
    jobs = [submitted(tmp_path / name, cpus=4) for name in ("one", "two")]
    pids = [set(job.up().values()) for job in jobs]
    assert not pids[0] & pids[1]
    os.kill(jobs[0].up()["rank1"], signal.SIGKILL)
    jobs[0].up(1)
    assert not jobs[1].run.attempt(1).path.exists()
    for job in jobs:
        job.finish()


@on("cgroup", "pgid-accounts")
def test_a_stop_in_the_middle_of_the_start(submitted: Callable[..., Submitted]) -> None:
    job = submitted()
    until(job.run.attempt(0).path.exists)
    job.run.attempt(0).request_stop("stopped")
    job.cluster.wait(job.job, "COMPLETED")
    job.seen |= set(standin.pids(job.run.path, 0).values())
    assert job.state() == "stopped"
    assert job.left() == []


@on("pgid", "linuxproc-accounts")
def test_files_that_appear_late(submitted: Callable[..., Submitted]) -> None:
    """As they may on another machine's disk."""
    job = submitted()
    elsewhere = job.run.plan.rename(job.run.path / "late")
    job.cluster.wait(job.job, "RUNNING")
    until(lambda: list(job.run.submitit.glob("*_1_log.out")))
    time.sleep(3)
    elsewhere.rename(job.run.plan)
    job.up()
    job.finish()


@on("cgroup", "linuxproc-accounts")
def test_a_job_that_is_submitted_from_within_another(submitted: Callable[..., Submitted],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """What that one has in its environment would be fatal."""
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "77", "SLURM_MEM_PER_CPU": "7", "SLURM_NNODES": "9",
                        "SLURM_CPUS_PER_TASK": "3", "SBATCH_PARTITION": "nowhere", "SLURM_CPU_BIND": "map_cpu:0",
                        "SLURM_JOB_DEPENDENCY": "afternotok:5", "SLURM_RESTART_COUNT": "4"}.items():
        monkeypatch.setenv(name, value)
    job = submitted()
    job.up()
    job.finish()


@on("linuxproc", "cgroup-accounts")
def test_a_run_that_is_given_up_is_a_failed_job(submitted: Callable[..., Submitted]) -> None:
    job = submitted()
    (job.run.path / "standin" / "fail1").write_text("a bad picture")
    job.cluster.wait(job.job, "FAILED")
    assert job.state() == "failed"
    assert job.words(1).endswith("a bad picture; there is no checkpoint; given up: the same error again")


@on("linuxproc", "cgroup-accounts")
def test_the_time_limit_without_a_signal(submitted: Callable[..., Submitted]) -> None:
    """The launcher looks at the clock itself."""
    job = submitted(time_minutes=1, signal_seconds=40, sbatch={"signal": "CONT@1"})
    job.up()
    until(job.run.attempt(0).verdict.exists)
    assert job.words(0) == "stopped at step 1: the job's time limit is near"
    (job.run.path / "standin" / "finish").touch()  # ahead of the next attempt, whose time may be up as soon
    job.cluster.start_again(job.job)
    job.cluster.wait(job.job, "COMPLETED")
    assert (job.state(), job.restarts()) == ("finished", 1)
