"""The whole way on a real two-node cluster: submitted from the command line, stopped, killed, queued again; and the
same weights come out as on this machine, bit for bit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, NodeDown, Result, Status
from tests.slurm.cluster import Cluster
from tests.slurm.kinds import SOME, on
from tests.slurm.runs import START, TrainingRun, launcher_on
from tests.tiny import latest, write_config

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture
def alone(undisturbed: RunDir) -> Result:
    """The result of two ranks on this machine."""
    return Result.require(undisturbed.result)


@on("cgroup", among=SOME)
def test_two_nodes_compute_what_one_computes(cluster: Cluster, tmp_path: Path, alone: Result) -> None:
    job = TrainingRun(cluster, tmp_path)
    assert job.result() == alone
    attempt = job.run.attempt(0)
    assert attempt.log(0).exists()
    start = AttemptStart.require(attempt.launch)
    assert start.host == NodeDown.require(attempt.node_down(0)).host == "n1"
    assert start.address == "127.0.0.1", "on the way to n2"
    assert Status.require(job.run.status).state == "finished"


@on("cgroup", among=SOME)
def test_in_an_allocation(cluster: Cluster, tmp_path: Path, alone: Result) -> None:
    """With --here: attached as on this machine, on both nodes, and a rank is killed on the second one. What the shell
    has from its own job does no harm."""
    write_config(tmp_path)
    shell = [sys.executable, str(ROOT / "launch" / "run.py"), "tiny.yaml", "--here", "--no-preflight",
             "task._target_=tests.tiny.Fuse", f"task.folder={tmp_path}", "task.at=[70]", "task.rank=1"]
    done = subprocess.run(["salloc", "--nodes=2", "--ntasks=2", "--mem-per-cpu=500", "--time=10", *shell], cwd=tmp_path,
                          text=True, capture_output=True, check=False, timeout=2 * START)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "2 ranks on the CPU, 2 nodes x 1, in the allocation of SLURM job" in done.stdout
    assert "restarting: rank 1 on n2 was killed (SIGKILL; out of memory?) at step" in done.stdout
    assert "\nfinished   42 steps, 454 samples (4 past the end of an epoch, in its last batch)\n" in done.stdout
    assert Result.require(latest(tmp_path).result) == alone
    assert re.search(r"Job allocation \d+ has been revoked|Relinquishing job allocation", done.stderr)


@pytest.mark.matrix
@on("cgroup", among=SOME)
def test_suspended_for_longer_than_a_hang_takes(cluster: Cluster, tmp_path: Path, alone: Result) -> None:
    """The ranks continue where they were."""
    job = TrainingRun(cluster, tmp_path, "watchdog.timeout_minutes=0.1", at="[70]", how="wait")
    job.reach()
    cluster.run("scontrol", "suspend", job.job_id)
    (tmp_path / "go").touch()
    time.sleep(20)
    cluster.run("scontrol", "resume", job.job_id)
    assert job.result() == alone
    assert len(list(job.run.attempts.iterdir())) == 1


@on("linuxproc-accounts", among=SOME)
def test_it_saves_ahead_of_its_time_limit_and_resumes(cluster: Cluster, tmp_path: Path,
                                                            alone: Result) -> None:
    """Loader workers included: under linuxproc SLURM signals every process of the job."""
    job = TrainingRun(cluster, tmp_path, "data.workers=1", at="[70]")
    job.reach()
    cluster.run("scancel", "--signal=USR2", job.job_id)  # to the steps, as --signal=USR2@N sends it at its time
    cluster.run("scancel", "--signal=TERM", job.job_id)
    job.go_on()
    cluster.start_again(job.job_id)
    assert job.result() == alone
    assert re.match(r"stopped at step \d+: the job's time limit is near", job.verdict(0))


@on("pgid", among=SOME)
def test_a_rank_killed_on_the_second_node(cluster: Cluster, tmp_path: Path, alone: Result) -> None:
    """The nodes restart in place together, within the same allocation."""
    job = TrainingRun(cluster, tmp_path, at="[70]", how="kill")
    assert job.result() == alone
    assert job.verdict(0).startswith("rank 1 on n2 was killed (SIGKILL; out of memory?) at step")
    assert len(list(job.run.attempts.iterdir())) == 2
    assert "Restarts=0" in cluster.run("scontrol", "show", "job", job.job_id)


@on("linuxproc-accounts", among=SOME)
def test_a_launcher_killed_on_the_second_node(cluster: Cluster, tmp_path: Path, alone: Result) -> None:
    """The launchers of both nodes are started again, in the same allocation."""
    job = TrainingRun(cluster, tmp_path, at="[70]", how="hold")
    job.reach()
    os.kill(launcher_on(job.job_id, 1), signal.SIGKILL)
    assert job.result() == alone
    assert job.verdict(0).startswith("the node launcher on n2 was killed, or the node failed; the last checkpoint")
    assert "Restarts=0" in cluster.run("scontrol", "show", "job", job.job_id)
