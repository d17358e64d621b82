"""The errors with which sbatch of SLURM 22.05 rejects a job, and how to fix them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drumbeat.configs.site import Site
from drumbeat.launch.slurm.sbatch_errors import sbatch_fault
from tests.launch.fake_slurm import programs

SITE = Site(partition="gqu", account="physics", time_minutes=99)


@pytest.mark.parametrize(("error", "screen"), [
    ("sbatch: error: invalid partition specified: gqu\nallocation failure: Invalid partition name specified", """\
error: SLURM would reject this job
  where  the cluster's profile, partition: gqu
  given  invalid partition specified: gqu
         allocation failure: Invalid partition name specified
  fix    Did you mean 'gpu'?"""),
    ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified", """\
error: SLURM would reject this job
  where  the cluster's profile, account: physics
  given  Batch job submission failed: Invalid account or account/partition
         combination specified
  fix    sacctmgr show associations user=me lists the accounts and QOS you may
         use."""),
    ("allocation failure: Requested time limit is invalid (missing or exceeds some limit)", """\
error: SLURM would reject this job
  where  the cluster's profile, time_minutes: 99
  given  allocation failure: Requested time limit is invalid (missing or exceeds
         some limit)
  fix    sinfo -o '%P %l' shows the time limit of each partition. A run that
         needs longer is requeued by itself."""),
    ("allocation failure: Requested node configuration is not available", """\
error: SLURM would reject this job
  where  sbatch --test-only
  given  allocation failure: Requested node configuration is not available
  fix    sinfo -o '%P %D %c %m %G' shows each partition's nodes, their cores,
         memory and GPUs: request no more with --nodes, --gpus and
         launch.cpus_per_rank."""),
    ("sbatch: error: AssocMaxSubmitJobLimit\nallocation failure: Job violates accounting/QOS policy (job submit limit, "
     "user's size and/or time limits)", """\
error: SLURM would reject this job
  where  the cluster's profile, account: physics
  given  AssocMaxSubmitJobLimit
         allocation failure: Job violates accounting/QOS policy (job submit
         limit, user's size and/or time limits)
  fix    Its account limits the jobs in the queue of each user: wait until some
         jobs end (squeue --me shows yours), or choose another account in the
         profile. sacctmgr show associations user=me shows the limits."""),
    ("sbatch: error: the site's own plugin says no", """\
error: SLURM would reject this job
  where  sbatch --test-only
  given  the site's own plugin says no
  fix    --dry-run shows the script."""),
])
def test_what_sbatch_says_on_one_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str,
                                        screen: str) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="echo gpu; echo cpu"))
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    assert str(sbatch_fault(error, SITE, "sbatch --test-only")) == screen


@pytest.mark.parametrize(("error", "remedy"), [
    ("Invalid qos specification", "QOS"),
    ("Invalid feature specification", "features"),
    ("Memory specification can not be satisfied", "the memory of the nodes"),
    ("Invalid generic resource (gres) specification", "gpu_type"),
    ("Node count specification invalid", "--nodes"),
    ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", "limits"),
    ("Unable to contact slurm controller (connect failure)", "does not answer"),
])
def test_what_to_do_about_a_refusal(error: str, remedy: str) -> None:
    fault = sbatch_fault(f"sbatch: error: Batch job submission failed: {error}", Site(), "sbatch")
    assert (fault.what, fault.where, fault.given) == (
        "sbatch refused the job", "sbatch", f"Batch job submission failed: {error}")
    assert remedy in fault.remedy


@pytest.mark.usefixtures("no_home")
def test_a_user_without_a_name_is_named_by_number() -> None:
    fault = sbatch_fault("sbatch: error: Invalid qos specification", Site(qos="x"), "sbatch")
    assert f"user={os.getuid()} lists" in fault.remedy
