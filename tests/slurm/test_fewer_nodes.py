"""Runs that can do with fewer nodes: `--nodes 1-3`."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, Result
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.status import status_text
from drumbeat.launch.runs.stop import stop
from tests.processes import until
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Submit
from tests.slurm.kinds import SOME, on
from tests.slurm.layout import CPUS
from tests.slurm.runs import TrainingRun, launcher_on, output_of
from tests.tiny import drumbeat, latest, write_config

pytestmark = pytest.mark.slurm


def nodes(run: RunDir, attempt: int) -> tuple[str, ...]:
    return AttemptStart.require(run.attempt(attempt).launch).nodes


def fail(cluster: Cluster, node: str) -> None:
    """Has SLURM take a node as failed; it is back as soon as its slurmd says that it is well."""
    cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")


@on("cgroup")
def test_it_starts_on_the_only_free_node_and_has_two_when_it_is_queued_again(cluster: Cluster, submitted: Submit
                                                                             ) -> None:
    other = cluster.run("sbatch", "--parsable", "--nodelist=n2", f"--cpus-per-task={CPUS}", "--wrap",
                        "sleep 600").strip()
    cluster.wait(other, "RUNNING")
    job = submitted(nodes=2, min_nodes=1)
    job.up(nodes=1)
    assert nodes(job.run, 0) == ("n1",)
    cluster.run("scancel", other)
    cluster.wait(other, "CANCELLED")
    cluster.run("scancel", "--signal=USR2", job.job_id)
    job.up_again(1)
    assert nodes(job.run, 1) == ("n1", "n2")
    job.finish()


@on("cgroup")
def test_it_goes_on_in_place_without_a_node_that_slurm_has_lost(cluster: Cluster, submitted: Submit) -> None:
    """In the same job, whose script starts the launchers on the others."""
    job = submitted(nodes=3, min_nodes=2, partition="wide")
    job.up()
    fail(cluster, "n3")
    job.up(1, nodes=2)
    assert (job.state(), job.restarts()) == ("running", 0)
    assert nodes(job.run, 1) == ("n1", "n2")
    job.finish()
    cluster.await_nodes()


@on("cgroup")
def test_it_goes_on_in_place_if_the_launcher_of_a_node_that_is_left_out_dies(submitted: Submit) -> None:
    """Which ends those of the others: all are started again, and the node is left out once more. It does not keep the
    run from stopping."""
    job = submitted(nodes=3, min_nodes=2, partition="wide", node_check="[ $SLURMD_NODENAME != n3 ]")
    job.up(1, nodes=2)
    os.kill(launcher_on(job.job_id, 2), signal.SIGKILL)
    job.up(3, nodes=2)
    assert [nodes(job.run, attempt) for attempt in (1, 2, 3)] == [("n1", "n2"), ("n1", "n2", "n3"), ("n1", "n2")]
    assert (job.state(), job.restarts()) == ("running", 0)
    assert "\nranks           2 of 3: some nodes are left out" in status_text(View.read(job.run))
    stop(job.run)
    job.cluster.wait(job.job_id, "COMPLETED")
    assert (job.state(), job.left()) == ("stopped", [])


@pytest.mark.matrix  # until SLURM notices, and then the other node
@on("cgroup", among=("cgroup",))
def test_it_is_queued_again_if_the_node_with_its_script_dies(cluster: Cluster, submitted: Submit) -> None:
    """By another node of the job: SLURM would leave the others to a job without a script."""
    job = submitted(nodes=3, min_nodes=2, partition="wide")
    job.up()
    with cluster.reconfigured(SlurmdTimeout=10):
        cluster.kill_daemon("n1")
        for process, command in cluster.commands().items():
            if any(b"slurm_script" in word for word in command):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        until(lambda: job.restarts() == 1, seconds=240)
        cluster.start_again(job.job_id)
        job.up(1, nodes=2)
    assert nodes(job.run, 1) == ("n2", "n3")
    job.let_finish()
    cluster.wait(job.job_id, "COMPLETED")
    cluster.start_daemon("n1")
    cluster.await_nodes()


@pytest.mark.slow
@on("cgroup", among=SOME)
def test_every_sample_is_seen_once_and_no_bit_changes_though_a_node_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    """With virtual ranks the weights are those of one rank on this machine."""
    (tmp_path / "alone").mkdir()
    drumbeat(tmp_path / "alone", str(write_config(tmp_path / "alone")), "--debug", "virtual_ranks=3")
    (tmp_path / "wide.yaml").write_text("partition: wide\n")
    job = TrainingRun(cluster, tmp_path, "virtual_ranks=3", "--profile", "wide.yaml", nodes="1-3", at="[9]")
    job.reach()
    fail(cluster, "n3")
    until(lambda: job.run.attempt(0).stop.exists() or job.run.attempt(1).path.exists())
    (tmp_path / "go").touch()
    assert job.result() == Result.require(latest(tmp_path / "alone").result)
    assert (nodes(job.run, 0), nodes(job.run, 1)) == (("n1", "n2", "n3"), ("n1", "n2"))
    assert "the ledger agrees with the order of samples in every span" in output_of(tmp_path, "verify", "tiny")
    cluster.await_nodes()
