"""The profiles of five sites, as their public documentation has users write a job's script: accepted, and carried out.

Names of projects and partitions are replaced. Of the paths and modules, those that a test cannot have are left out.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from drumbeat.configs.load import load_site
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Submit
from tests.slurm.kinds import on

pytestmark = [pytest.mark.slurm, pytest.mark.matrix, on("cgroup-accounts", among=("cgroup-accounts",))]

PROFILES = {
    # docs.lumi-supercomputer.eu, LUMI-G example batch scripts: GPUs per node, days in the time limit, mail
    "LUMI-G": ("""
partition: main
account: project_465
time_minutes: 1-12:00:00
gpu_flag: gpus-per-node
environment: {MPICH_GPU_SUPPORT_ENABLED: 1}
sbatch: {mail-type: all, mail-user: username@domain.com}
""", ["Account=project_465", "TimeLimit=1-12:00:00", "TresPerNode=gres:gpu:1", "MailUser=username@domain.com"]),
    # docs.csc.fi, Creating a batch job script for Puhti: a type of GPU and local disk in one --gres, memory of a core
    "Puhti": ("""
partition: main
account: project_200
time_minutes: 02:00:00
gpu_type: v100
mem_gb_per_cpu: 2
sbatch: {gres: nvme:10, mail-type: BEGIN}
""", ["Account=project_200", "TimeLimit=02:00:00", "TresPerNode=gres:gpu:v100:1,gres:nvme:10",
      "MinMemoryCPU=2G"]),
    # docs.archer2.ac.uk, Machine Learning: a QOS for each partition, whole nodes, a home that the nodes do not see
    "ARCHER2": ("""
partition: main
account: z19
qos: gpu-exc
time_minutes: 01:00:00
gpu_flag: gpus-per-node
setup:
  - export HOME=${HOME/home/work}
environment: {OMP_NUM_THREADS: 1}
sbatch: {exclusive: true, hint: nomultithread}
""", ["Account=z19", "QOS=gpu-exc", "OverSubscribe=NO", "TimeLimit=01:00:00"]),
    # hpc-docs.uni.lu, Slurm launchers: modules by way of a login shell, which a script that fails has to leave
    "ULHPC": ("""
partition: main
account: default
time_minutes: 0-04:00:00
setup:
  - source /etc/profile
  - |-
    print_error_and_exit() { echo "***ERROR*** $*"; exit 1; }
    module purge || print_error_and_exit "No 'module' command"
""", ["Account=default", "TimeLimit=04:00:00", "TresPerNode=gres:gpu:1"]),
    # apps.fz-juelich.de/jsc/hps/juwels, Batch system: accounts by budget, GPUs by --gres, the network's own variables
    "JUWELS": ("""
partition: main
account: budget
time_minutes: 24:00:00
mem_gb_per_node: 64
environment: {UCX_TLS: "^cma", UCX_NET_DEVICES: "mlx5_0:1,mlx5_1:1"}
sbatch: {exclusive: user, threads-per-core: 1}
""", ["Account=budget", "TimeLimit=1-00:00:00", "TresPerNode=gres:gpu:1", "MinMemoryNode=64G"]),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_run_with_the_profile_of_a_site(cluster: Cluster, submitted: Submit, tmp_path: Path, name: str) -> None:
    """It gets what it asks for, and is requeued like any other."""
    text, shown = PROFILES[name]
    (tmp_path / "site.yaml").write_text(text)
    site = load_site(str(tmp_path / "site.yaml"))
    qos = f",{site.qos}" if site.qos else ""
    entries = [*([f"add qos {site.qos}"] if site.qos else []), f"add account {site.account} set QOS=normal{qos}",
               f"add user root account={site.account}"]
    cluster.run("sacctmgr", "--immediate", stdin="".join(f"{entry}\n" for entry in entries))
    job = submitted(device="cuda", cpus=2, **vars(site))
    job.up()
    found = cluster.run("scontrol", "--oneliner", "show", "job", job.job_id)
    assert [one for one in shown if f" {one} " not in f"{found.strip()} "] == [], found
    script = next(job.run.submitit.glob(f"{job.job_id}_submission.sh")).read_text()
    assert re.search(r"^#SBATCH --partition=main$", script, re.MULTILINE)
    cluster.run("scancel", "--signal=USR2", job.job_id)
    job.up_again(1)
    job.finish()
