"""The test cluster is a real one, treats signals as real ones do, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from submitit import SlurmExecutor

from drumbeat.configs.layers import ROOT
from tests.processes import names_of, until
from tests.slurm import witness
from tests.slurm.accounting import MEMORY
from tests.slurm.cluster import Cluster, ClusterError
from tests.slurm.keeper import JOBS_PER_CLUSTER
from tests.slurm.kinds import ACCOUNTS, KINDS, on
from tests.slurm.pool import Clusters

pytestmark = pytest.mark.slurm

ON_EACH = on("cgroup", "linuxproc", "pgid", among=("cgroup", "linuxproc", "pgid"))
RECEIVERS = {
    "cgroup": {"task"},
    "pgid": {"task", "partner"},
    "linuxproc": {"task", "partner", "child", "grandchild"},
}
"""Whom `--signal=USR2@N` reaches, by ProctrackType. Launchers that get this wrong lose their last save."""


def executor(folder: Path, **parameters: Any) -> SlurmExecutor:
    made = SlurmExecutor(folder / "submitit")
    made.update_parameters(ntasks_per_node=1, gres="gpu:4", time=10, setup=[f"export PYTHONPATH={ROOT}"], **parameters)
    return made


def traces_of(folder: Path) -> list[str]:
    """What the cluster with this folder has left on the machine, found without the cluster's own help."""
    conf = dict(line.split("=", 1) for line in (folder / "slurm.conf").read_text().splitlines())
    scratch = Path(conf["SlurmctldPidFile"]).parent
    folders = (scratch, MEMORY / scratch.name)
    left = [str(folder) for folder in folders if folder.exists()]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            left += [command] if str(folder) in command or str(scratch) in command else []
    left += [line for line in Path("/etc/hosts").read_text().splitlines() if str(scratch) in line]
    first = int(conf["FirstJobId"])
    jobs = {f"job_{number}" for number in range(first, first + JOBS_PER_CLUSTER)}
    return left + [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if Path(folder).name in jobs]


@ON_EACH
def test_two_tasks_on_two_nodes(cluster: Cluster, tmp_path: Path) -> None:
    job = executor(tmp_path, nodes=2).submit(witness.place)
    cluster.wait(job.job_id, "COMPLETED")
    assert job.results() == [("n1", "0", "0,1,2,3"), ("n2", "1", "0,1,2,3")]


@ON_EACH
def test_who_receives_the_signal(cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    job = executor(tmp_path, nodes=1).submit(witness.task, tmp_path)
    until(lambda: witness.all_up(tmp_path))
    cluster.run("scancel", "--signal=USR2", job.job_id)  # To the steps, as --signal=USR2@N sends it at its time.
    receivers = RECEIVERS[request.node.callspec.id]
    until(lambda: all(witness.seen(tmp_path, name) for name in receivers))
    time.sleep(0.3)  # For the others, who would get it within a millisecond.
    (tmp_path / "end").touch()
    cluster.wait(job.job_id, "COMPLETED")
    assert {name: witness.seen(tmp_path, name) for name in witness.FAMILY} == {
        name: {"SIGUSR2"} if name in receivers else set() for name in witness.FAMILY}


@on("cgroup")
def test_an_urgent_job_warns_the_one_it_preempts(cluster: Cluster, tmp_path: Path) -> None:
    """With a GraceTime, the job's steps get SIGTERM at once. The requeue comes with a check each half minute."""
    low = cluster.fill("main", witness.command(tmp_path))
    until(lambda: witness.all_up(tmp_path))
    high = cluster.fill("urgent", "true")
    until(lambda: "SIGTERM" in witness.seen(tmp_path, "task"))
    (tmp_path / "end").touch()
    cluster.wait(low, "COMPLETED")
    cluster.wait(high, "COMPLETED")


@on("cgroup")
def test_a_preempted_job_runs_again(cluster: Cluster) -> None:
    low = cluster.fill("requeue")
    cluster.wait(low, "RUNNING")
    high = cluster.fill("urgent", "true")
    cluster.wait(high, "COMPLETED")
    assert cluster.state(low) == "PENDING"
    cluster.start_again(low)
    cluster.wait(low, "RUNNING")
    assert "Restarts=1" in cluster.run("scontrol", "show", "job", low)
    cluster.run("scancel", low)
    with pytest.raises(ClusterError, match=f"job {low} is CANCELLED"):
        cluster.wait(low, "RUNNING")


def test_nothing_is_left_when_the_body_raises(accounting_installed: None, tmp_path: Path) -> None:
    """Under pgid, SLURM itself would lose track of the child and the grandchild."""
    folder = tmp_path / "cluster"
    processes: set[int] = set()

    def body() -> None:
        with Cluster(folder, proctrack="pgid", accounting=True) as cluster:
            cluster.fill("main", witness.command(tmp_path))
            until(lambda: witness.all_up(tmp_path))
            processes.update(cluster.processes())
            names = names_of(processes).values()
            assert {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmstepd", "srun"} <= {*names}
            assert {int((tmp_path / f"{name}.pid").read_text()) for name in witness.FAMILY} <= processes
            assert traces_of(folder)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
    assert traces_of(folder) == []


def test_nothing_is_left_when_the_test_process_is_killed(accounting_installed: None, tmp_path: Path) -> None:
    code = "import os, pathlib, sys; from tests.slurm.cluster import Cluster\n"
    code += "with Cluster(pathlib.Path(sys.argv[1]), accounting=True): os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, timeout=120)
    assert done.returncode == -signal.SIGKILL
    until(lambda: traces_of(tmp_path) == [])


def test_a_start_that_fails_says_what_the_daemon_logged(slurm_installed: None, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"(?s)n[12] ended with code 1\n.*cannot find proctrack plugin"):
        Cluster(tmp_path, proctrack="none").__enter__()  # type: ignore[arg-type]
    assert traces_of(tmp_path) == []


@on("cgroup-accounts", among=[kind for kind in KINDS if kind.endswith(ACCOUNTS)])
def test_accounts_and_jobs_are_kept(cluster: Cluster) -> None:
    job = cluster.fill("main", "true")
    cluster.wait(job, "COMPLETED")
    query = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=Account,User,QOS,State")
    until(lambda: cluster.run(*query, "--jobs", job).strip() == "root|root|normal|COMPLETED")


@on("cgroup")
def test_a_refused_command_says_why(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"(?s)nowhere ended with code 1.*invalid partition"):
        cluster.run("sbatch", "--wrap", "true", "-p", "nowhere")
    assert os.environ["SLURM_CONF"] == cluster.environ["SLURM_CONF"]


@on("cgroup")
def test_a_setting_is_changed_and_changed_back(cluster: Cluster) -> None:
    def value() -> str:
        return cluster.run("scontrol", "show", "config").partition("SlurmdTimeout")[2].split()[1]

    before = value()
    with open(cluster.environ["SLURM_CONF"]) as reader:
        with cluster.reconfigured(SlurmdTimeout=11):
            assert value() == "11"
        assert f"SlurmdTimeout={before}\n" in reader.read(), "who reads the file just then finds it whole"
    assert value() == before


@on("pgid", among=("pgid",))
def test_the_next_test_finds_a_cluster_at_rest(cluster: Cluster, clusters: Clusters) -> None:
    """Jobs that a test leaves are ended, daemons that it has killed are started; a cluster that it has damaged makes
    room for another."""
    cluster.wait(cluster.fill(), "RUNNING")
    waiting = cluster.fill()
    clusters.put_back("pgid")
    assert clusters.take("pgid") is cluster
    assert (cluster.state(waiting), cluster.run("squeue", "--noheader")) == ("CANCELLED", "")
    cluster.kill_daemon("n2")
    clusters.put_back("pgid")
    assert clusters.take("pgid") is cluster
    cluster.wait(cluster.fill("main", "true"), "COMPLETED")
    conf = cluster.folder / "slurm.conf"
    kept = conf.read_text()
    conf.write_text("ClusterName=\n")  # without the file, scancel would look for it for a minute
    with pytest.raises(ClusterError, match="scancel --user=root ended with code 1"):
        clusters.put_back("pgid")
    conf.write_text(kept)
    other = clusters.take("pgid")
    assert other is not cluster
    other.wait(other.fill("main", "true"), "COMPLETED")
    assert traces_of(cluster.folder) == []
