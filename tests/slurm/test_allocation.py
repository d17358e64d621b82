"""--here on a real cluster: a run is a step of the user's own job, which it neither ends nor has queued again.

With a fake torchrun; tests/slurm/test_training.py tests with the real one.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.plan import Allocation
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.allocation import find_allocation
from drumbeat.launch.backends.backend import running_evidence
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.runs.status import with_final_state
from drumbeat.launch.runs.stop import cancel, stop
from tests.processes import until
from tests.runs import write_state
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Allocate
from tests.slurm.kinds import on
from tests.slurm.runs import TIME_LIMIT, AllocationRun

pytestmark = pytest.mark.slurm


@on("cgroup")
def test_what_an_allocation_has(cluster: Cluster, allocate: Allocate) -> None:
    job = allocate("--cpus-per-task=3", "--gres=gpu:2")
    assert find_allocation({"SLURM_JOB_ID": job}) == Allocation(job_id=job, nodes=2, cpus_per_node=3, gpus_per_node=2)
    cluster.run("scancel", job)
    cluster.wait(job, "CANCELLED")
    with pytest.raises(LaunchError, match=f"SLURM job {job} cannot be used"):
        find_allocation({"SLURM_JOB_ID": job})


@on("cgroup")
def test_ranks_and_launchers_that_are_killed(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    """The run goes on in the allocation, both nodes together."""
    run = AllocationRun(cluster, tmp_path, allocate())
    os.kill(run.up()["rank1"], signal.SIGKILL)
    run.up(1)
    os.kill(run.launcher(1, 1), signal.SIGKILL)
    run.up(2)
    run.finish()
    assert "was killed (SIGKILL" in run.verdict(0)
    assert run.verdict(1).startswith("the node launcher on n2 was killed")


@on("cgroup")
def test_stopped_and_resumed_in_the_same_allocation(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    """What was asked of the run before, and how it ended, is not said of the one that goes on."""
    run = AllocationRun(cluster, tmp_path, allocate())
    run.up()
    stop(run.run)
    run.gone()
    assert (run.state(), run.verdict(0)) == ("stopped", "stopped at step 1: as asked")
    run.resume()
    run.up(1)
    run.finish()


@on("cgroup")
def test_two_runs_share_an_allocation_and_others_wait(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    job = allocate("--cpus-per-task=2")
    runs = [AllocationRun(cluster, tmp_path / name, job) for name in ("one", "two")]
    assert not set(runs[0].up().values()) & set(runs[1].up().values())
    waiting, unwanted = (AllocationRun(cluster, tmp_path / name, job) for name in ("three", "four"))
    until(lambda: len(processes_of(View.read(unwanted.run))) == 2)  # bash and srun
    cancel(unwanted.run)
    unwanted.gone()
    for run in runs:
        assert waiting.run.newest_attempt() is None
        run.finish()
    waiting.up()
    waiting.finish()
    assert unwanted.run.newest_attempt() is None


@on("cgroup")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_a_cancelled_run_leaves_the_allocation(cluster: Cluster, allocate: Allocate, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch, elsewhere: bool) -> None:
    """Typed on a machine that sees none of the run's processes too. The allocation stays."""
    run = AllocationRun(cluster, tmp_path, allocate())
    run.up()
    if elsewhere:
        monkeypatch.setattr("drumbeat.launch.backends.contract.processes_of", lambda *_: [])
        monkeypatch.setattr("drumbeat.launch.backends.processes.processes_of", lambda *_: [])
        assert running_evidence(View.read(run.run)).startswith(f"step {run.job_id}.")
    output = cancel(run.run)
    assert output.startswith(f"{run.run.id} ended; SLURM job {run.job_id} stays; there is no checkpoint.")
    monkeypatch.undo()
    run.gone()
    assert run.state() == "cancelled"
    assert not run.run.attempt(1).path.exists()


@on("cgroup")
def test_the_time_limit_of_the_allocation(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    """The launcher looks at the clock. On a slow machine the time is over before the ranks are up."""
    run = AllocationRun(cluster, tmp_path, allocate("--time=1"), signal_seconds=55)
    run.gone()
    assert run.state() == "stopped"
    assert re.fullmatch(f"{TIME_LIMIT}; resume it in another allocation, or with --slurm", run.verdict(0))


@on("cgroup")
def test_the_signal_ahead_of_its_end(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    run = AllocationRun(cluster, tmp_path, allocate())
    run.up()
    cluster.run("scancel", "--signal=USR2", run.job_id)  # to the steps, as salloc --signal=USR2@N has it sent
    run.gone()
    assert run.verdict(0).startswith("stopped at step 1: the job's time limit is near; resume it")


@on("cgroup")
def test_an_allocation_cancelled_during_the_run(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    """It saves in the time that SLURM leaves it."""
    run = AllocationRun(cluster, tmp_path, allocate())
    run.up()
    cluster.run("scancel", run.job_id)
    until(run.run.attempt(0).verdict.exists)
    assert (run.state(), run.verdict(0)) == ("cancelled", "stopped at step 1: the job was cancelled")
    until(lambda: run.left() == [] and not run.started.running())


@pytest.mark.matrix
@on("cgroup", among=("cgroup",))
def test_an_allocation_that_loses_a_node(cluster: Cluster, allocate: Allocate, tmp_path: Path) -> None:
    """The run does not fit into the rest, which stays the user's."""
    run = AllocationRun(cluster, tmp_path, allocate())
    (run.run.path / "fake" / "saving").touch()
    run.up()
    cluster.run("scontrol", "update", f"jobid={run.job_id}", "numnodes=1")
    run.gone()
    write_state(run.run, "running", ago=3600)
    view = with_final_state(View.read(run.run))
    assert (view.state, view.verdict) == (
        "failed", f"its launchers ended in SLURM job {run.job_id}: error: Only allocated 1 nodes asked for 2; there is "
        "no checkpoint")
