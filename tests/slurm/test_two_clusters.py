"""Two clusters with one accounting database, as `sbatch --clusters` needs: jobs on the one that is not the shell's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drumbeat.configs.run.records import Job
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.slurm import Slurm
from drumbeat.launch.runs.stop import cancel
from drumbeat.launch.runs.why import why
from drumbeat.launch.slurm.client import split_id
from tests.processes import until
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Submit
from tests.slurm.kinds import on
from tests.slurm.runs import NO_REQUEUE, SubmittedRun, output_of

pytestmark = [pytest.mark.slurm, pytest.mark.matrix, on("cgroup-accounts", among=("cgroup-accounts",))]


@pytest.fixture
def other(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster `other`, beside the one that the shell asks."""
    folder = tmp_path_factory.mktemp("other")
    with Cluster(folder, accounting=True, name="other", beside=cluster) as other:
        until(lambda: "other" in cluster.run("sacctmgr", "--noheader", "show", "cluster", "format=cluster"))
        yield other


@pytest.fixture
def submit(other: Cluster, submitted: Submit) -> Submit:
    """Submits runs to the other cluster."""

    def to_other(**site: object) -> SubmittedRun:
        job = submitted(cpus=1, sbatch={"clusters": "other"} | dict(site.pop("sbatch", {})), **site)
        return on_other(job, other)

    return to_other


def on_other(job: SubmittedRun, other: Cluster) -> SubmittedRun:
    number, name = split_id(job.job_id)
    assert name == "other"
    job.cluster, job.job_id = other, number
    return job


def test_cancelled_and_resumed(cluster: Cluster, other: Cluster, submit: Submit, tmp_path: Path) -> None:
    """From a shell whose squeue and scancel ask another cluster."""
    job = submit()
    job.up()
    recorded = f"{job.job_id};other"
    assert Job.require(job.run.job).id == recorded
    assert f"{recorded}, running in partition main" in why(View.read(job.run))
    assert f"job {recorded}" in " ".join(output_of(tmp_path, "status", str(job.run.path)).split())
    assert cluster.run("squeue", "--noheader") == ""
    assert f"SLURM job {recorded} cancelled" in cancel(job.run)
    assert (other.state(job.job_id), job.state()) == ("CANCELLED", "cancelled")
    job.resume()
    on_other(job, other)
    job.up(1)
    job.finish()


def test_requeued(other: Cluster, submit: Submit) -> None:
    job = submit()
    job.up()
    other.run("scancel", "--signal=USR2", job.job_id)
    job.up_again(1)
    job.finish()


def test_the_next_job_is_on_the_same_cluster(cluster: Cluster, other: Cluster, submit: Submit) -> None:
    job = submit(sbatch=NO_REQUEUE)
    job.up()
    next_job = job.successor()
    assert split_id(next_job)[1] == "other"
    assert other.state(split_id(next_job)[0]) == "PENDING"
    other.run("scancel", "--signal=USR2", job.job_id)
    job.up(1)
    assert Job.require(job.run.job).id == next_job
    assert Slurm().running_evidence(View.read(job.run))
    assert next_job in cancel(job.run)
    job.all_gone()
    assert cluster.run("squeue", "--noheader") == ""
