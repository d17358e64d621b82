"""On a cluster with accounting: what accounts and QOS forbid is told in words; and nothing of ours asks sacct."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Status
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.cluster_checks import check_cluster
from drumbeat.launch.backends.slurm import Slurm
from drumbeat.launch.runs.why import why
from tests.processes import until
from tests.runs import write_job, write_plan, write_state
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Submit
from tests.slurm.kinds import on
from tests.slurm.runs import NO_REQUEUE, output_of, small_request

pytestmark = [pytest.mark.slurm, on("cgroup-accounts", among=("cgroup-accounts",))]

ENTRIES = """\
add qos brief set MaxWall=10 Flags=DenyOnLimit
add qos small set MaxTRESPerJob=node=1 Flags=DenyOnLimit
add qos slim set MaxTRESPerNode=gres/gpu=1 Flags=DenyOnLimit
add qos lone set MaxSubmitJobsPerUser=1
add qos single set MaxJobsPerUser=1
add qos shared set GrpTRES=gres/gpu=4 MaxWall=10
add qos theirs
add account lab set QOS=normal,brief,small,slim,lone,single,shared
add account closed set MaxSubmitJobs=0
add account others
add user root account=lab,closed
"""
"""What sacctmgr is told: user root works for accounts lab and closed, and for none of the others."""


@pytest.fixture
def accounts(cluster: Cluster) -> Cluster:
    """The cluster, with these accounts and QOS."""
    if "lab" not in cluster.run("sacctmgr", "--noheader", "show", "account", "format=account").split():
        cluster.run("sacctmgr", "--immediate", stdin=ENTRIES)
    return cluster


@pytest.fixture
def ahead(accounts: Cluster) -> Callable[..., None]:
    """Starts a job that runs already, with these options of sbatch's."""

    def put(*options: str) -> None:
        job = accounts.run("sbatch", "--parsable", "--account=lab", "--output=/dev/null", "--chdir=/", "--time=5",
                           *options, "--wrap=sleep 300").strip()
        accounts.wait(job, "RUNNING")

    return put


@pytest.mark.parametrize(("assignments", "site", "said", "where", "do"), [
    ([], {"account": "nowhere"}, "Invalid account or account/partition combination", "account: nowhere", "accounts"),
    ([], {"account": "others"}, "Invalid account or account/partition combination", "account: others", "accounts"),
    ([], {"qos": "nowhere"}, "Invalid qos specification", "qos: nowhere", "lists the QOS"),
    ([], {"account": "lab", "qos": "theirs"}, "Invalid qos specification", "qos: theirs", "lists the QOS"),
    ([], {"account": "closed"}, "AssocMaxSubmitJobLimit", "account: closed", "jobs in the queue of each user"),
    ([], {"qos": "brief", "time_minutes": 20}, "QOSMaxWallDurationPerJobLimit", "qos: brief", "shorter time_minutes"),
    (["launch.nodes=2"], {"qos": "small"}, "QOSMaxNodePerJobLimit", "qos: small", "fewer --nodes"),
    (["launch.gpus=2"], {"qos": "slim"}, "QOSMaxGRESPerNode", "qos: slim", "more GPUs on a node"),
], ids=["no account", "another's account", "no QOS", "another's QOS", "jobs", "time", "nodes", "GPUs"])
def test_what_an_account_or_a_qos_forbids(accounts: Cluster, tmp_path: Path, assignments: list[str],
                                          site: dict[str, Any], said: str, where: str, do: str) -> None:
    """Told when SLURM is asked whether it would take the job, and when it does not take it."""
    job = small_request(tmp_path, "launch.gpus=0", "launch.nodes=1", *assignments, **{"account": "lab", **site})
    for submit, what in ((check_cluster, "SLURM would reject this job"), (Slurm().submit, "sbatch refused the job")):
        with pytest.raises(LaunchError) as error:
            submit(job)  # type: ignore[operator]
        fault = error.value.faults[0]
        assert (fault.what, fault.where) == (what, f"the cluster's profile, {where}")
        assert said in str(fault.given) and do in fault.remedy
    assert accounts.run("squeue", "--noheader") == ""


@pytest.mark.parametrize(("first", "assignments", "site", "reason", "words"), [
    (["--qos=single"], [], {"qos": "single"}, "QOSMaxJobsPerUserLimit", "its QOS limits the running jobs of each user"),
    (["--qos=shared", "--gres=gpu:3"], ["launch.gpus=3"], {"qos": "shared"}, "QOSGrpGRES",
     "its QOS limits the GPUs of all its jobs together"),
    ([], [], {"qos": "shared", "time_minutes": 20}, "QOSMaxWallDurationPerJobLimit",
     "it asks for more time than its QOS allows for a job"),
], ids=["jobs", "GPUs", "time"])
def test_why_a_job_waits(accounts: Cluster, ahead: Callable[..., None], tmp_path: Path, first: list[str],
                         assignments: list[str], site: dict[str, Any], reason: str, words: str) -> None:
    if first:
        ahead(*first)
    run = RunDir(tmp_path / "run")
    asked = small_request(tmp_path, "launch.gpus=0", "launch.nodes=1", *assignments, account="lab", **site)
    job = Slurm().submit(asked)
    write_plan(run)
    write_state(run, "pending")
    write_job(run, "slurm", id=job.id)
    view = View.read(run)
    until(lambda: reason in why(view))
    said = " ".join(why(view).split())
    assert f"why {reason}: " in said and words in said
    assert ("CANCEL" not in said) and ("drumbeat cancel" in said) == (not first)


def test_no_further_job_is_allowed(accounts: Cluster, submitted: Submit) -> None:
    """The account lets no second job into the queue, and SLURM does not queue the first one again."""
    job = submitted(sbatch=NO_REQUEUE, account="lab", qos="lone")
    job.up()
    log = (job.run.submitit / f"{job.job_id}_0_log.out").read_text()
    assert "SLURM would neither requeue this job nor accept a next one: QOSMaxSubmitJobPerUserLimit" in log
    accounts.run("scancel", "--signal=USR2", job.job_id)
    until(lambda: not accounts.run("squeue", "--noheader"))
    assert job.state() == "stopped"
    assert job.verdict(0) == (
        "stopped at step 1: the job's time limit is near; SLURM does not requeue it: Requested operation is "
        f"presently disabled for job {job.job_id}; nor does it accept another job: QOSMaxSubmitJobPerUserLimit")


def test_sacct_is_not_asked(accounts: Cluster, submitted: Submit, tmp_path: Path,
                            monkeypatch: pytest.MonkeyPatch) -> None:
    """Some sites have none, or one that takes minutes. A run goes from start to end without it, and so do its verbs."""
    sacct, asked, found = tmp_path / "bin" / "sacct", tmp_path / "asked", tmp_path / "found"
    sacct.parent.mkdir()
    sacct.write_text(f"#!/bin/sh\necho \"$0 $*\" >>{asked}\nexec sleep 600\n")
    sacct.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sacct.parent}{os.pathsep}{os.environ['PATH']}")
    job = submitted(account="lab", setup=[f"command -v sacct >{found}"])
    check_cluster(job.request)
    before = job.up()
    words = [str(job.run.path)]
    assert f"job {job.job_id}" in output_of(tmp_path, "status", *words)
    assert "it is running normally" in output_of(tmp_path, "why", *words)
    os.kill(before["rank1"], signal.SIGKILL)
    job.up(1)
    accounts.run("scancel", "--signal=USR2", job.job_id)
    accounts.start_again(job.job_id)
    job.up(2)
    output_of(tmp_path, "cancel", *words)
    until(lambda: not accounts.run("squeue", "--noheader"))
    assert Status.require(job.run.status).state == "cancelled"
    assert found.read_text().strip() == str(sacct), "the nodes would have found the slow one"
    assert not asked.exists()
