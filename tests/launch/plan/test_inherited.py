"""Which variables of a shell a run does not inherit. Everything else is the user's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from drumbeat.launch.backends.backend import BACKENDS
from drumbeat.launch.plan.inherited import TORCHRUN, not_inherited

USERS = ["LOCAL_SCRATCH", "PET_DATA", "MASTER_KEY", "PMI", "PMI_HOME", "PMIX_MCA_gds", "MY_RANK", "RANKS", "LOCALE",
         "SUBMITIT_LOG_LEVEL", "TORCHELASTIC_ENABLE_FILE_TIMER", "CUDA_VISIBLE_DEVICES", "PATH", "HOME"]
"""Names that begin or end like those that are dropped."""
WHERE = ["SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_SACK_SOCKET"]
LOGIN = ["SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_RESERVATION", "SBATCH_EXPORT", "SBATCH_WCKEY", "SLURM_HINT",
         "SLURM_CPU_BIND", "SRUN_EXPORT_ENV"]
"""What users and sites set in a login shell."""
SCRIPT = "".join(f"#SBATCH --{option}\n" for option in ("job-name=x", "mem=10M", "requeue", "time=9", "gres=gpu:1"))


def dropped(*names: str, script: str = "") -> list[str]:
    return list(not_inherited(dict.fromkeys(names, "x"), (), script))


def test_exact_names_are_dropped() -> None:
    described = ["LOCAL_RANK", "MASTER_ADDR", "PET_RDZV_ID", "PMIX_RANK", "PMI_RANK", "RANK", "SUBMITIT_EXECUTOR",
                 "TORCHELASTIC_RUN_ID", "WORLD_SIZE"]
    assert dropped(*USERS, *WHERE, *described) == described


def test_the_options_of_torchrun_are_those_of_its_parser() -> None:
    code = ("from torch.distributed.run import get_args_parser\n"
            "from torch.distributed.argparse_util import check_env, env\n"
            "print(*(a.dest for a in get_args_parser()._actions if isinstance(a, (env, check_env))))")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {f"PET_{option.upper()}" for option in found} <= TORCHRUN


def test_slurms_variables_are_dropped_only_inside_a_job() -> None:
    assert dropped(*LOGIN, *WHERE) == []
    job = ["SLURM_CPU_BIND", "SLURM_HINT", "SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "SRUN_EXPORT_ENV",
           "SBATCH_MEM_BIND_TYPE"]
    assert dropped(*LOGIN, *WHERE, *job) == sorted(job)


def test_the_account_of_a_login_shell_is_sbatchs() -> None:
    assert dropped(*LOGIN, script=SCRIPT) == []


@pytest.mark.parametrize(("name", "reason"), [
    ("SBATCH_TIMELIMIT", "would override --time of the script"),
    ("SBATCH_JOB_NAME", "would override --job-name of the script"),
    ("SBATCH_MEM_PER_CPU", "would override --mem of the script"),
    ("SBATCH_NO_REQUEUE", "would override --requeue of the script"),
    ("SBATCH_GPUS", "would override --gres of the script"),
    ("SBATCH_ARRAY_INX", "sets --array, which Drumbeat sets"),
    ("SBATCH_WAIT", "sets --wait, which Drumbeat sets"),
])
def test_a_variable_of_sbatch_does_not_override_the_script(name: str, reason: str) -> None:
    assert not_inherited({name: "1"}, (), SCRIPT) == {name: reason}
    assert not_inherited({name: "1"}) == {}, "a local run does not call sbatch"


def test_slurm_assigns_the_gpus_of_its_jobs() -> None:
    for backend in ("here", "slurm"):
        assert not_inherited({"CUDA_VISIBLE_DEVICES": "3"}, BACKENDS[backend].job_variables) == {
            "CUDA_VISIBLE_DEVICES": "the job gets its own"}
