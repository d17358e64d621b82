"""Submitting to a real controller: that times out, is away, refuses; and every kind of script that we write."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.site import Site
from drumbeat.launch.backends.slurm import Slurm
from tests.launch.backends.test_slurm import CASES
from tests.launch.tiny_plan import plan
from tests.processes import until
from tests.slurm.cluster import Cluster
from tests.slurm.kinds import on
from tests.slurm.runs import small_request

pytestmark = [pytest.mark.slurm, on("pgid", among=("pgid",))]


def jobs(cluster: Cluster) -> list[str]:
    """Those that wait or run. SLURM remembers what it refused, too."""
    return cluster.run("squeue", "--noheader", "--name=small", "--states=PD,R", "--format=%i").split()


def test_taken_without_an_answer(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                 capfd: pytest.CaptureFixture[str]) -> None:
    before = jobs(cluster)
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@" >/dev/null\n'
                      'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2\n'
                      "exit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    job = Slurm().submit(small_request(tmp_path))
    assert sorted([*before, str(job.id)]) == sorted(jobs(cluster))
    assert (RunDir(tmp_path / "run").submitit / f"{job.id}_submitted.pkl").exists()
    assert "Socket timed out on send/recv operation; checking whether it has the job ..." in capfd.readouterr().err
    cluster.run("scancel", str(job.id))


@pytest.mark.slow
def test_the_controller_is_away_for_a_while(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capfd: pytest.CaptureFixture[str]) -> None:
    """One job is there afterwards. sbatch itself tries for three seconds here, one less than MessageTimeout, and the
    controller is back once it has given up."""
    impatient = tmp_path / "slurm.conf"
    impatient.write_text(f"{Path(cluster.environ['SLURM_CONF']).read_text()}MessageTimeout=4\n")
    monkeypatch.setenv("SLURM_CONF", str(impatient))
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@"; code=$?\ntouch {tmp_path}/tried\nexit $code\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    cluster.kill_daemon("slurmctld")
    with ThreadPoolExecutor() as threads:
        submitting = threads.submit(lambda: Slurm().submit(small_request(tmp_path)))
        try:
            until((tmp_path / "tried").exists)
        finally:
            cluster.start_daemon("slurmctld")
        job = submitting.result()
    assert "connect failure); checking whether it has the job ..." in capfd.readouterr().err
    scripts = cluster.run("squeue", "--noheader", "--states=all", "--format=%i|%o").split()
    assert [job for job, _, script in (line.partition("|") for line in scripts) if tmp_path in Path(script).parents] \
        == [str(job.id)]


@pytest.mark.parametrize(("assignments", "site", "message", "fix"), [
    (["launch.gpus=1"], {"partition": "nowhere"}, "invalid partition", "sinfo lists the partitions:"),
    (["launch.gpus=5"], {}, "configuration is not available", "--nodes, --gpus and"),
    (["launch.gpus=1"], {"gpu_type": "a100"}, "configuration is not available|gres", "GPUs"),
    (["launch.gpus=1"], {"mem_gb_per_node": 1000}, "emory|configuration", "memory"),
    (["launch.gpus=1"], {"constraint": "quantum"}, "nvalid feature", "features of the nodes"),
], ids=["partition", "gpus", "gpu type", "memory", "constraint"])
def test_a_rejected_job_names_the_fix(cluster: Cluster, tmp_path: Path, assignments: list[str], site: dict[str, Any],
                                   message: str, fix: str) -> None:
    before = jobs(cluster)
    with pytest.raises(LaunchError) as error:
        Slurm().submit(small_request(tmp_path, *assignments, **site))
    fault = error.value.faults[0]
    assert re.search(message, str(fault.given)) and fix in fault.remedy
    assert jobs(cluster) == before


@pytest.mark.parametrize("name", CASES)
def test_slurm_accepts_every_script(cluster: Cluster, tmp_path: Path, name: str) -> None:
    """Without the settings of the golden files' site that this cluster does not have."""
    assignments, site = CASES[name]
    missing = {"partition": None, "account": None, "qos": None, "constraint": None, "gpu_type": None}
    here = Site(**{**vars(site), **missing, "sbatch": {**site.sbatch}})
    text = Slurm().request(plan(tmp_path, *assignments, backend="slurm", site=here), after="").text
    tested = subprocess.run(["sbatch", "--test-only", f"--chdir={tmp_path}"], input=text, text=True,
                            capture_output=True, check=False, env={**os.environ, **cluster.environ})
    assert re.search(r"Job \d+ to start at", tested.stderr), tested.stderr
