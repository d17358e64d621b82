"""Nodes that fail a check before the ranks, or that are lost: they are remembered, and the run goes on without them."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from drumbeat.configs.run.bad_nodes import forget, remember, remembered
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Job, NodeUp, Result, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.slurm import Slurm
from drumbeat.launch.runs.status import with_final_state
from tests.processes import until
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Submit
from tests.slurm.kinds import SOME, on
from tests.slurm.runs import NO_REQUEUE, StandInRun, TrainingRun, output_of
from tests.tiny import write_config

pytestmark = pytest.mark.slurm

LOST = "the node check on n2 ended with code 3: GPU 1 is lost"
CHECK = 'echo checking; [ $SLURMD_NODENAME != n2 ] || { echo "GPU 1 is lost" >&2; exit 3; }'


def hosts(job: StandInRun, attempt: int) -> set[str]:
    """The nodes of an attempt."""
    return {NodeUp.require(job.run.attempt(attempt).node_up(node)).host for node in (0, 1)}


@on("cgroup")
@pytest.mark.parametrize("requeue", [True, False], ids=["requeue", "successor"])
def test_a_failed_check_excludes_the_node_until_it_is_forgotten(submitted: Submit, requeue: bool) -> None:
    """Whether another job is queued then, or was queued when the first one started."""
    job = submitted(partition="wide", node_check=CHECK, sbatch={} if requeue else NO_REQUEUE)
    job.up(1)
    verdict = Verdict.require(job.run.attempt(0).verdict)
    assert (verdict.next, verdict.bad_nodes) == ("requeue", {"n2": LOST})
    assert verdict.message == f"{LOST}; there is no checkpoint; queued again, without n2 if possible"
    assert (hosts(job, 0), hosts(job, 1)) == ({"n1", "n2"}, {"n1", "n3"})
    assert Job.require(job.run.job).id != job.job_id
    job.let_finish()
    job.all_gone()
    assert (job.state(), job.attempts()) == ("finished", 2)

    (bad,) = remembered(job.folder)
    assert (bad.node, bad.reason, bad.run) == ("n2", LOST, job.run.id)
    plan = job.request.plan
    request = Slurm().request(plan)
    assert "#SBATCH --exclude=n2\n" in request.text
    assert len(request.notes) == 1
    assert request.notes[0].startswith("n2 is excluded until ")
    forget(job.folder, ["n2"])
    assert "--exclude" not in Slurm().request(plan).text


@pytest.mark.slow
@on("cgroup", among=SOME)
def test_the_run_finishes_elsewhere_with_the_same_weights(cluster: Cluster, tmp_path: Path,
                                                          undisturbed: RunDir) -> None:
    """Typed on the command line: with a profile, and after a dry run that names a node that another run remembers."""
    runs = tmp_path / "runs"
    runs.mkdir()
    remember(runs, "n1", "rank 3 lost its GPU", "20261128-183858-ypnga", time.time())
    (tmp_path / "site.yaml").write_text(f"partition: wide\nnode_check: '{CHECK}'\n")
    planned = output_of(tmp_path, "run", str(write_config(tmp_path)), "--slurm", "--procs", "1", "--profile",
                        "site.yaml", "--dry-run")
    assert "#SBATCH --exclude=n1 " in planned
    excluded = r"# n1 is excluded until \S+ \S+: rank 3 lost its GPU \(run (# )?20261128-183858-ypnga\)\."
    assert re.search(excluded, planned)
    assert output_of(tmp_path, "nodes", "--forget", "n1") == "forgotten: n1"
    job = TrainingRun(cluster, tmp_path, "--profile", "site.yaml")
    until(lambda: Job.require(job.run.job).id != job.job_id)
    job.job_id = str(Job.require(job.run.job).id)
    assert job.result() == Result.require(undisturbed.result)
    assert job.verdict(0).startswith(LOST)
    assert {NodeUp.require(job.run.attempt(1).node_up(node)).host for node in (0, 1)} == {"n1", "n3"}
    listed = output_of(tmp_path, "nodes")
    assert re.match(rf"n2 from \S+ \S+ to \S+ \S+, run {job.run.id} {LOST} ", listed)


@on("cgroup")
def test_a_node_on_which_the_launcher_does_not_start(submitted: Submit, tmp_path: Path) -> None:
    """The others are ended before they can record it, whether or not one of them has claimed an attempt; the first
    command that looks at the run some seconds later does."""
    container = tmp_path / "container"
    container.write_text('#!/bin/sh\n[ $SLURMD_NODENAME != n2 ] || exec /nowhere/python\nexec "$@"\n')
    container.chmod(0o755)
    job = submitted(prefix=str(container), restarts=100)  # each attempt that is claimed meanwhile is a failure
    job.cluster.wait(job.job_id, "FAILED")
    until(lambda: with_final_state(View.read(job.run)).state == "failed")
    assert View.read(job.run).verdict.startswith(
        f"SLURM job {job.job_id} ended before its launcher started on n2: its script ")
    (bad,) = remembered(job.folder)
    assert bad.node == "n2"
    assert re.fullmatch(r"its launcher did not start: .*/nowhere/python: not found", bad.reason)
