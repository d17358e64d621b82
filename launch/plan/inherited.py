"""The variables of this shell that a run must not inherit, each with the reason. All others are the user's and are
kept."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from drumbeat.configs.sbatch_options import OWNED

RANK = frozenset({
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS",
    "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_TIMER_FILE",
    "TORCHELASTIC_SIGNALS_TO_HANDLE", "TORCHELASTIC_HEALTH_CHECK_PORT"})
"""What torchrun gives to each process that it starts."""

TORCHRUN = frozenset(f"PET_{option}" for option in (
    "NNODES", "NPROC_PER_NODE", "RDZV_BACKEND", "RDZV_ENDPOINT", "RDZV_ID", "RDZV_CONF", "STANDALONE", "MAX_RESTARTS",
    "MONITOR_INTERVAL", "START_METHOD", "EVENT_LOG_HANDLER", "ROLE", "MODULE", "NO_PYTHON", "RUN_PATH", "LOG_DIR",
    "REDIRECTS", "TEE", "LOG_LINE_PREFIX_TEMPLATE", "LOCAL_RANKS_FILTER", "DUPLICATE_STDOUT_FILTERS",
    "DUPLICATE_STDERR_FILTERS", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_ADDR", "SIGNALS_TO_HANDLE",
    "SHUTDOWN_TIMEOUT", "VIRTUAL_LOCAL_RANK"))
"""Defaults of torchrun's options: see the parser in torch.distributed.run, of torch 2.9 to 2.14."""

MPI = frozenset({
    "PMI_RANK", "PMI_SIZE", "PMI_FD", "PMI_PORT", "PMI_ID", "PMI_JOBID", "PMI_KVSNAME", "PMI_PROCESS_MAPPING",
    "PMI_APPNUM", "PMI_SPAWNED", "PMI_CONTROL_PORT", "PMI_CONTROL_FD", "PMI_LOCAL_RANK", "PMI_LOCAL_SIZE",
    "PMI_UNIVERSE_SIZE", "PMIX_NAMESPACE", "PMIX_ID", "PMIX_RANK", "PMIX_SERVER_TMPDIR", "PMIX_SYSTEM_TMPDIR",
    "PMIX_SECURITY_MODE", "PMIX_PTL_MODULE", "PMIX_BFROP_BUFFER_TYPE", "PMIX_GDS_MODULE", "PMIX_HOSTNAME",
    "PMIX_VERSION", "PMIX_DSTORE_ESH_BASE_PATH", "PMIX_DSTORE_21_BASE_PATH", "PMIX_KEEPALIVE_PIPE",
    *(f"PMIX_SERVER_URI{version}" for version in ("", "2", "21", "3", "4", "41", "5", "51"))})
"""What mpirun and srun give to each process that they start, by PMI (MPICH, SLURM) and PMIx (Open MPI, SLURM)."""

SUBMITIT = frozenset({
    "SUBMITIT_EXECUTOR", "SUBMITIT_FOLDER", "SUBMITIT_DEBUG_JOB_ID", "SUBMITIT_STDERR_TO_STDOUT",
    "SUBMITIT_LOCAL_COMMAND", "SUBMITIT_LOCAL_TIMEOUT_S", "SUBMITIT_LOCAL_SIGNAL_DELAY_S", "SUBMITIT_LOCAL_WITH_SHELL",
    "SUBMITIT_LOCAL_JOB_ID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_JOB_NUM_NODES", "SUBMITIT_LOCAL_NODEID",
    "SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_LOCALID"})
"""What submitit gives to the jobs that it starts."""

PROCESS = (
    (RANK, "describes a process that torchrun started"),
    (TORCHRUN, "sets an option of torchrun, which Drumbeat sets"),
    (MPI, "describes a process that mpirun or srun started"),
    (SUBMITIT, "describes a job that submitit started"),
    (frozenset({"DRUMBEAT_START"}), "describes another run"),
)

CLUSTER = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_SACK_SOCKET",
                     "SLURM_SACK_KEY"})
"""Where SLURM is and who asks: kept inside a job, too."""
IN_JOB = re.compile(r"SLURM_|SLURMD_|SRUN_|SBATCH_(CPU|MEM)_BIND(_(LIST|PREFER|SORT|TYPE|VERBOSE))?$")
"""What SLURM sets in a job, and srun reads as options. Wrong in another job: an inherited SLURM_MEM_PER_NODE makes srun
fail, an inherited SLURM_CPU_BIND pins every rank to a few cores. Outside of a job, these are the user's own options."""

OPTION_NAMES = {"ARRAY_INX": "array", "BURST_BUFFER": "bb", "CPU_FREQ_REQ": "cpu-freq", "DEBUG": "verbose",
                "MEM_PER_NODE": "mem", "REQ_SWITCH": "switches", "TIMELIMIT": "time", "WAIT4SWITCH": "switches"}
"""The options of the variables of sbatch that are not named after theirs."""
ALTERNATIVES = (
    {"mem", "mem-per-cpu", "mem-per-gpu"},
    {"requeue", "no-requeue"},
    {"gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"},
)
"""Options of sbatch that say the same thing in different ways."""
LEFT_OPEN = frozenset({"account", "partition", "qos", "constraint", *ALTERNATIVES[2]})
"""Options that variables of sbatch may set, if the profile leaves them open."""


def not_inherited(environ: Mapping[str, str], job_variables: Collection[str] = (), script: str = "") -> dict[str, str]:
    """The names of the variables that a new run must not inherit, sorted, and why: those that describe the job or
    process of this shell, the `job_variables` that a job gets where it starts, and those that would override options in
    the job's `script`, because sbatch prefers its variables to the script."""
    given = set(re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE))
    in_job = "SLURM_JOB_ID" in environ or "SLURM_JOBID" in environ
    return dict(sorted((name, reason) for name in environ
                       if (reason := next(_reasons(name, in_job, job_variables, given), ""))))


def _reasons(name: str, in_job: bool, job_variables: Collection[str], given: Collection[str]) -> Iterator[str]:
    yield from (reason for names, reason in PROCESS if name in names)
    if name in job_variables:
        yield "the job gets its own"
    if in_job and name not in CLUSTER and IN_JOB.match(name):
        yield "describes the SLURM job of this shell"
    if given and name.startswith("SBATCH_"):
        variable = name.removeprefix("SBATCH_")
        option = OPTION_NAMES.get(variable, variable.lower().replace("_", "-"))
        same = next((group for group in ALTERNATIVES if option in group), {option})
        if overridden := sorted(same & set(given)):
            yield f"would override --{overridden[0]} of the script"
        elif option in OWNED and option not in LEFT_OPEN:
            yield f"sets --{option}, which Drumbeat sets"
