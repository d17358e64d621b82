"""--here on a real cluster: a run is a step of the user's own job, which it neither ends nor has queued again.

With a stand-in in torchrun's place; tests/slurm/test_run.py has the real thing.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs import importing
from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Allocation, JobPlan, Topology
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Site
from drumbeat.launch.backends.allocation import InAllocation, find_allocation
from drumbeat.launch.backends.backend import running_evidence
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.runs.stop import cancel, request_stop
from drumbeat.launch.slurm.client import steps
from tests.launch import standin
from tests.launch.node.test_launcher import ROOT, alive, until
from tests.runs import write_job, write_state
from tests.slurm.cluster import Cluster
from tests.slurm.matrix import on
from tests.slurm.test_launcher import Submitted

pytestmark = pytest.mark.slurm


class Lent(Submitted):
    """A run of one stand-in rank on each of two nodes of an allocation, started as the command line does it."""

    def __init__(self, cluster: Cluster, folder: Path, job: str, cpus: int = 1, restarts: int = 3, **site: Any) -> None:
        self.cluster, self.job = cluster, job
        self.seen: set[int] = set()
        self.run = RunDir(folder / f"{folder.name}-run")
        (self.run.path / "standin").mkdir(parents=True)
        plan = JobPlan(run_dir=str(self.run.path), name="standin", backend="here",
                       allocation=find_allocation({"SLURM_JOB_ID": job}),
                       topology=Topology(nodes=2, ranks_per_node=1, device="cpu", cpus_per_rank=cpus),
                       site=Site(**site), environment=importing.environment(str(ROOT), []), folder=str(folder),
                       restarts=restarts)
        self.request = InAllocation().request(plan)
        replace(plan, python=standin.install(folder)).write(self.run.plan)
        self.resume()

    def resume(self) -> None:
        """Starts it, for the first time or once more."""
        write_state(self.run, "pending")
        write_job(self.run, "here", id=self.job, host=socket.gethostname())
        self.started = InAllocation().submit(self.request)

    def gone(self) -> None:
        """Waits until nothing of the run is left; the allocation is as it was."""
        self.seen |= {pid for pids in map(partial(standin.pids, self.run.path), range(3)) for pid in pids.values()}
        until(lambda: not self.started.running(), seconds=120)
        assert self.left() == processes_of(View.read(self.run)) == steps(self.job, self.run.id) == []
        assert (self.cluster.state(self.job), self.restarts()) == ("RUNNING", 0)

    def finish(self) -> None:
        (self.run.path / "standin" / "finish").touch()
        self.gone()
        assert self.state() == "finished"
        assert standin.heard(self.run.path) == {}, "none but the launcher may hear signals"


Allocate = Callable[..., str]
"""salloc's options -> the id of a job that only holds its nodes."""


@pytest.fixture
def allocate(cluster: Cluster) -> Iterator[Allocate]:
    jobs = []

    def salloc(*options: str) -> str:
        done = subprocess.run(["salloc", "--no-shell", "--nodes=2", *options], capture_output=True, text=True,
                              check=True)
        jobs.append(re.search(r"Granted job allocation (\d+)", done.stderr)[1])  # type: ignore[index]
        return jobs[-1]

    yield salloc
    if jobs:
        cluster.run("scancel", *jobs)
    until(lambda: not cluster.run("squeue", "--noheader"), seconds=120)


@on("cgroup")
def test_what_an_allocation_has(cluster: Cluster, allocate: Allocate) -> None:
    job = allocate("--cpus-per-task=3", "--gres=gpu:2")
    assert find_allocation({"SLURM_JOB_ID": job}) == Allocation(job_id=job, nodes=2, cpus_per_node=3, gpus_per_node=2)
    cluster.run("scancel", job)
    cluster.wait(job, "CANCELLED", timeout=20)
    with pytest.raises(LaunchError, match=f"SLURM job {job} cannot be used"):
        find_allocation({"SLURM_JOB_ID": job})


@on("cgroup")
def test_ranks_and_launchers_that_are_killed(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    """The run goes on in the allocation, both nodes together."""
    run = Lent(cluster, tmp_path, allocate())
    os.kill(run.up()["rank1"], signal.SIGKILL)
    run.up(1)
    os.kill(run.launcher(1, 1), signal.SIGKILL)
    run.up(2)
    run.finish()
    assert "was killed (SIGKILL" in run.words(0)
    assert run.words(1).startswith("the node launcher on n2 was killed")


@on("cgroup")
def test_stopped_and_resumed_in_the_same_allocation(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    """What was asked of the run before, and how it ended, is not said of the one that goes on."""
    run = Lent(cluster, tmp_path, allocate())
    run.up()
    request_stop(View.read(run.run))
    run.gone()
    assert (run.state(), run.words(0)) == ("stopped", "stopped at step 1: as asked")
    run.resume()
    run.up(1)
    run.finish()


@on("cgroup")
def test_two_runs_share_it_and_others_wait(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    job = allocate("--cpus-per-task=2")
    runs = [Lent(cluster, tmp_path / name, job) for name in ("one", "two")]
    assert not set(runs[0].up().values()) & set(runs[1].up().values())
    waiting, unwanted = (Lent(cluster, tmp_path / name, job) for name in ("three", "four"))
    until(lambda: len(processes_of(View.read(unwanted.run))) == 2)  # bash and srun
    cancel(View.read(unwanted.run))
    unwanted.gone()
    for run in runs:
        assert waiting.run.newest_attempt() is None
        run.finish()
    waiting.up()
    waiting.finish()
    assert unwanted.run.newest_attempt() is None


@on("cgroup")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_cancelled(cluster: Cluster, allocate: Allocate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                   elsewhere: bool) -> None:
    """Typed on a machine that sees none of the run's processes too. The allocation stays."""
    run = Lent(cluster, tmp_path, allocate())
    run.up()
    if elsewhere:
        monkeypatch.setattr("drumbeat.launch.backends.contract.processes_of", lambda *_: [])
        monkeypatch.setattr("drumbeat.launch.backends.processes.processes_of", lambda *_: [])
        assert running_evidence(View.read(run.run)).startswith(f"step {run.job}.")
    said = cancel(View.read(run.run))
    assert said.startswith(f"{run.run.id} ended; SLURM job {run.job} stays; there is no checkpoint.")
    monkeypatch.undo()
    run.gone()
    assert run.state() == "cancelled"
    assert not run.run.attempt(1).path.exists()


@on("cgroup")
def test_its_time_limit(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    """The launcher looks at the clock. On a slow machine the time is over before the ranks are up."""
    run = Lent(cluster, tmp_path, allocate("--time=1"), signal_seconds=55)
    run.gone()
    assert run.state() == "stopped"
    assert re.match("stopped (at step 1|without a checkpoint): the job's time limit is near; (there is no checkpoint; )?"
                    "to go on, resume it in another allocation, or with --slurm$", run.words(0))


@on("cgroup")
def test_told_of_its_end(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    run = Lent(cluster, tmp_path, allocate())
    run.up()
    cluster.run("scancel", "--signal=USR2", run.job)  # to the steps, as salloc --signal=USR2@N has it sent
    run.gone()
    assert run.words(0).startswith("stopped at step 1: the job's time limit is near; to go on")


@on("cgroup")
def test_given_back_while_the_run_is_at_work(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    """It saves in the time that SLURM leaves it."""
    run = Lent(cluster, tmp_path, allocate())
    run.up()
    cluster.run("scancel", run.job)
    until(lambda: not run.started.running(), seconds=120)
    assert (run.state(), run.words(0)) == ("cancelled", "stopped at step 1: the job was cancelled")
    assert not [pid for pid in run.seen if alive(pid)]
