"""Runs on sixteen nodes of one core each."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.records import Job, NodeUp
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Submit
from tests.slurm.kinds import SIXTEEN, on
from tests.slurm.runs import NO_REQUEUE, TrainingRun, output_of

pytestmark = [pytest.mark.slurm, pytest.mark.matrix, on(SIXTEEN, among=(SIXTEEN,))]
NODES = 16
MINUTES = 15
"""Within which sixteen nodes import torch, on two cores that others use as well. Two are enough if none do."""


def test_a_job_that_is_followed_by_another(submitted: Submit) -> None:
    """All nodes leave together, and the next job's launchers find each other."""
    job = submitted(nodes=NODES, cpus=1, partition="wide", sbatch=NO_REQUEUE)
    next_job = job.successor()
    job.up()
    job.cluster.run("scancel", "--signal=USR2", job.job_id)
    job.cluster.wait(job.job_id, "FAILED")
    job.up(1)
    assert job.verdict(0) == "stopped at step 1: the job's time limit is near"
    assert Job.require(job.run.job).id == next_job
    assert len({NodeUp.require(job.run.attempt(1).node_up(node)).host for node in range(NODES)}) == NODES
    job.let_finish()
    job.cluster.wait(next_job, "COMPLETED")
    job.all_gone()
    assert job.state() == "finished"


@pytest.mark.slow
def test_sixteen_ranks_train_and_are_requeued(cluster: Cluster, tmp_path: Path) -> None:
    """Every sample is seen once, as the ledger proves."""
    (tmp_path / "wide.yaml").write_text("partition: wide\n")
    job = TrainingRun(cluster, tmp_path, "--profile", "wide.yaml", "batch_size=32", "phases.finetune.batch_size=32",
                      nodes=NODES, at="[4]")
    job.reach(seconds=MINUTES * 60)
    cluster.run("scancel", "--signal=USR2", job.job_id)
    job.go_on()
    cluster.start_again(job.job_id)
    assert job.result(MINUTES * 60).steps
    assert job.verdict(0).startswith("stopped at step ")
    assert len(list(job.run.attempts.iterdir())) == 2
    assert "the ledger agrees with the order of samples in every span" in output_of(tmp_path, "verify", "tiny")
