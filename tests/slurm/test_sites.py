"""What sites and users have in their profiles, shells and paths, on a real cluster: the run comes to its end, or is
refused before it is queued."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.run.records import Job
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.allocation import InAllocation
from drumbeat.launch.backends.slurm import Slurm
from drumbeat.launch.slurm.client import job_state, split_id, steps
from tests.processes import until
from tests.runs import write_job
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Allocate, Submit
from tests.slurm.kinds import on
from tests.slurm.runs import AllocationRun, small_request

pytestmark = pytest.mark.slurm
one_kind = on("pgid", among=("pgid",))
with_accounts = on("cgroup-accounts", among=("cgroup-accounts",))


@one_kind
@pytest.mark.parametrize("site", [{"sbatch": {"export": "NONE"}}, {"sbatch": {"mem": "0"}}, {"setup": ["set -eu"]}],
                         ids=["export NONE", "mem 0", "set -eu"])
def test_a_run_comes_to_its_end(submitted: Submit, site: dict[str, Any]) -> None:
    """Also if a launcher is killed, which the job's script has to notice."""
    job = submitted(cpus=1, **site)
    job.up()
    os.kill(job.launcher(1), signal.SIGKILL)
    job.up(1)
    job.let_finish()
    job.cluster.wait(job.job_id, "COMPLETED")
    assert job.state() == "finished"


@one_kind
def test_a_site_that_exports_nothing(submitted: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    """SBATCH_EXPORT=NONE in the login shell, as some sites have it."""
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    job = submitted(cpus=1)
    job.up()
    job.finish()


@one_kind
@pytest.mark.parametrize("name", ["100% sure", "my%20runs", "%x%b", "a%%c"])
def test_percent_signs_in_the_path(submitted: Submit, tmp_path: Path, name: str) -> None:
    """In the patterns of SLURM's log files they stand for something else."""
    folder = tmp_path / name
    folder.mkdir()
    job = submitted(folder, cpus=1)
    job.up()
    job.finish()
    assert (job.run.submitit / f"{job.job_id}_0_log.out").exists()


@one_kind
def test_settings_of_squeue_and_scancel_hide_no_job(cluster: Cluster, submitted: Submit,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SQUEUE_PARTITION", "urgent"), ("SQUEUE_STATES", "SUSPENDED"), ("SCANCEL_PARTITION", "urgent"),
                        ("SCANCEL_STATE", "SUSPENDED"), ("SQUEUE_FORMAT", "%j")):
        monkeypatch.setenv(name, value)
    cluster.fill()
    job = submitted()  # which waits
    assert job_state(job.job_id) == "PENDING"
    assert Slurm().running_evidence(View.read(job.run)) == f"SLURM job {job.job_id} is pending"
    assert Slurm().cancel(View.read(job.run)) == f"SLURM job {job.job_id} cancelled"
    assert cluster.state(job.job_id) == "CANCELLED"


@one_kind
def test_a_banner_of_the_sites_sbatch(submitted: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\necho 'Your last job 77 took 12 core hours'; echo 42\n"
                                             f"exec {shutil.which('sbatch')} \"$@\"\n")
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    job = submitted(cpus=1)
    job.up()
    job.finish()


@with_accounts
def test_the_account_of_a_login_shell(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is charged, as with plain sbatch; a profile's account wins."""
    cluster.run("sacctmgr", "--immediate",
                stdin="add account mine\nadd account yours\nadd user root account=mine,yours\n")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    for site, account in (({}, "mine"), ({"account": "yours"}, "yours")):
        job = str(Slurm().submit(small_request(tmp_path, **site)).id)
        assert f"Account={account} " in cluster.run("scontrol", "--oneliner", "show", "job", job)
        cluster.run("scancel", job)


@with_accounts
def test_a_cluster_of_several(cluster: Cluster, submitted: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job's id names the cluster; it is asked and cancelled there, whatever the shell says."""
    job = submitted(cpus=1, sbatch={"clusters": "test"})
    number, name = split_id(job.job_id)
    assert (name, Job.require(job.run.job).id) == ("test", f"{number};test")
    job.job_id = number
    job.up()
    until(lambda: job_state(f"{number};test") == "RUNNING")
    assert Slurm().running_evidence(View.read(job.run)).startswith("process ")
    assert [row for row in Slurm().explain(View.read(job.run)) if row[0] == "job"] == [
        ("job", f"{number};test, running in partition main")]
    assert Slurm().cancel(View.read(job.run)) == f"SLURM job {number};test cancelled"
    assert cluster.state(number) == "CANCELLED"


@one_kind
@pytest.mark.parametrize("value", [r"a\b", r"\\host\me", "a'\\'b", r"$HOME\`"])
def test_backslashes_reach_slurm(cluster: Cluster, tmp_path: Path, value: str) -> None:
    """sbatch removes them from a script's options, also between quotes."""
    job = str(Slurm().submit(small_request(tmp_path, sbatch={"mail-user": value, "mail-type": "FAIL"})).id)
    assert f"MailUser={value} " in cluster.run("scontrol", "--oneliner", "show", "job", job)
    cluster.run("scancel", job)


@with_accounts
def test_an_allocation_while_the_shell_names_another_cluster(cluster: Cluster, allocate: Allocate, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    job = allocate()
    monkeypatch.setenv("SLURM_CLUSTERS", "another")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "test")
    run = AllocationRun(cluster, tmp_path, job)
    run.up()
    assert run.started.id == f"{job};test"
    write_job(run.run, "here", id=run.started.id)
    view = View.read(run.run)
    assert steps(f"{job};test", run.run.id) == [f"{job}.0;test"]
    assert InAllocation().cancel(view) == f"{run.run.id} ended; SLURM job {job};test stays"
    until(lambda: run.left() == [] and not run.started.running())
    assert cluster.state(job) == "RUNNING"
