"""Commands on a real SLURM: what it would refuse, why a job waits, a job that is cancelled, and all of it while the
controller does not answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Status
from tests.processes import until
from tests.slurm.cluster import Cluster
from tests.slurm.kinds import on
from tests.slurm.runs import output_of, submitted_job
from tests.tiny import drumbeat, latest, write_config

pytestmark = [pytest.mark.slurm, pytest.mark.slow, on("pgid-accounts", among=("cgroup", "linuxproc", "pgid-accounts"))]


def test_what_slurm_would_refuse_is_told_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """On one screen, before the model is looked at, and nothing is left."""
    write_config(tmp_path)
    (tmp_path / "site.yaml").write_text("partition: mian\n")
    submit = ["run", "tiny.yaml", "--slurm", "--procs", "1"]
    assert "where the cluster's profile, partition: mian given invalid partition specified: mian" in output_of(
        tmp_path, *submit, "--profile", "site.yaml", expect=2)
    for flags in (["--nodes", "5"], ["--gpus", "9"], ["launch.cpus_per_rank=99"]):
        arguments = [*submit[:3], *(["--procs", "1"] if "--gpus" not in flags else []), *flags]
        output = output_of(tmp_path, *arguments, expect=2)
        assert "given allocation failure: Requested node configuration is not available" in output
        assert "Traceback" not in output
    assert not (tmp_path / "runs").exists()
    assert cluster.run("squeue", "--noheader") == ""


def test_a_job_that_waits_is_explained_and_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    """With the folder alone while the controller is silent; and the code that it waits with stays what it was."""
    write_config(tmp_path)
    ahead = cluster.fill()
    cluster.wait(ahead, "RUNNING")
    output = drumbeat(tmp_path, "tiny.yaml", "--slurm", "--procs", "1", preflight=True).stdout
    run, job = latest(tmp_path), submitted_job(output)
    assert re.search(r"queue      SLURM would start it at \S+ \S+ on n", output)
    until(lambda: "Resources: it is next, and waits for free nodes" in output_of(tmp_path, "why", "tiny"))
    assert f"{run.id} tiny pending job {job}" in output_of(tmp_path, "ls")

    silent = tmp_path / "slurm.conf"
    text = (Path(cluster.environ["SLURM_CONF"])).read_text()
    silent.write_text(re.sub(r"(?m)^SlurmctldPort=.*$", "SlurmctldPort=1", text))
    alone = {"SLURM_CONF": str(silent)}
    assert "pending" in output_of(tmp_path, "ls", **alone)
    assert json.loads(output_of(tmp_path, "status", "tiny", "--json", **alone))["job"] == job
    assert "SLURM does not answer" in output_of(tmp_path, "why", "tiny", **alone)
    output = output_of(tmp_path, "cancel", "tiny", expect=2, **alone)
    assert "the run cannot be cancelled: SLURM does not answer" in output

    assert f"SLURM job {job} cancelled; there is no checkpoint" in output_of(tmp_path, "cancel", "tiny")
    assert Status.require(run.status).state == "cancelled"
    assert job not in cluster.run("squeue", "--noheader", "--format", "%i")
    cluster.run("scancel", ahead)


def test_a_job_runs_the_code_it_was_submitted_with(cluster: Cluster, tmp_path: Path) -> None:
    """Edited while it waits in the queue, and again before it is queued again; and cancelled in the end."""
    write_config(tmp_path)
    nets = "from tests.tiny import Net\n\nclass Mine(Net):\n    mark = '{}'\n\n    def train(self, mode=True):\n" \
           "        print('mark', self.mark, flush=True)\n        return super().train(mode)\n"
    (tmp_path / "nets.py").write_text(nets.format("submitted"))
    ahead = cluster.fill()
    cluster.wait(ahead, "RUNNING")
    output = drumbeat(tmp_path, "tiny.yaml", "--slurm", "--procs", "1", "model._target_=nets.Mine",
                    "task._target_=tests.tiny.Fuse", f"task.folder={tmp_path}", "task.at=[8,8]", "task.how=wait").stdout
    run, job = latest(tmp_path), submitted_job(output)
    (tmp_path / "nets.py").write_text(nets.format("edited"))
    cluster.run("scancel", ahead)
    until((tmp_path / "blown-0").exists, seconds=120)
    cluster.run("scontrol", "requeue", job)
    until(run.attempt(0).stop.exists)
    (tmp_path / "go").touch()
    until(run.attempt(0).saved.exists)
    (tmp_path / "go").unlink()
    cluster.start_again(job)
    until((tmp_path / "blown-1").exists, seconds=120)
    assert marks(run) == {"submitted"}
    assert len(list(run.attempts.iterdir())) == 2
    output_of(tmp_path, "cancel", "tiny")
    assert Status.require(run.status).state == "cancelled"
    assert cluster.run("squeue", "--noheader") == ""


def marks(run: RunDir) -> set[str]:
    """Which code the ranks of all attempts say they run."""
    return {line.split()[1] for log in run.attempts.glob("*/rank0.log") for line in log.read_text().splitlines()
            if line.startswith("mark ")}
