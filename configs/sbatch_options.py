"""The options of sbatch that Drumbeat sets itself. A profile's `sbatch` section may not contain them, and a variable
such as SBATCH_ARRAY_INX may not set them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ONE_TASK = "one launcher runs on each node, and starts the ranks of --gpus or --procs"
READ_BY_NAME = "the job's logs are in the run folder, where `drumbeat logs` and `drumbeat why` read them"
OWN_ANSWER = "Drumbeat calls sbatch, and reads its answer"
NODES = "set the number of nodes with --nodes, or launch.nodes in the config"
CORES = "set the number of cores of a rank with launch.cpus_per_rank in the config"
GPUS = "set the number of GPUs with --gpus, and how to request them with gpu_flag and gpu_type in the profile"

OWNED: dict[str, str] = {
    "account": "set account in the profile",
    "partition": "set partition in the profile",
    "qos": "set qos in the profile",
    "constraint": "set constraint in the profile",
    "time": "set time_minutes in the profile",
    "job-name": "set name in the config, or use --name",
    "nodes": NODES,
    "ntasks": ONE_TASK,
    "ntasks-per-node": ONE_TASK,
    "ntasks-per-core": ONE_TASK,
    "ntasks-per-gpu": ONE_TASK,
    "ntasks-per-socket": ONE_TASK,
    "cpus-per-task": CORES,
    "cpus-per-gpu": CORES,
    "gpus": GPUS,
    "gpus-per-node": GPUS,
    "gpus-per-socket": GPUS,
    "gpus-per-task": GPUS,
    "signal": "set signal_seconds in the profile",
    "array": "a run is one job; start one run for each set of values, or use --here in an array of your own",
    "comment": "the comment holds the run's id, by which its jobs are found",
    "dependency": "a run's next job depends on the one before; start a run after another with "
                  "scontrol update jobid=JOB dependency=...",
    "kill-on-invalid-dep": "a run's next job depends on the one before",
    "output": READ_BY_NAME,
    "error": READ_BY_NAME,
    "open-mode": "the log of a requeued job continues the one before",
    "wait": "the command returns when the job is queued; wait with `drumbeat logs -f`",
    "wrap": "the job's script is Drumbeat's; set setup or prefix in the profile",
    "parsable": OWN_ANSWER,
    "quiet": OWN_ANSWER,
    "test-only": "use --dry-run",
    "help": OWN_ANSWER,
    "usage": OWN_ANSWER,
    "version": OWN_ANSWER,
}
"""What to use instead of each option, or why it is Drumbeat's."""

MEMORY: dict[str, str] = {
    option: f"set mem_gb_per_{unit} in the profile; or {option.replace('_', '-')} below `sbatch:`"
    for option, unit in (("mem", "node"), ("mem_per_cpu", "cpu"), ("mem_per_gpu", "gpu"))}
"""The keys of a profile that set the memory, and the options of sbatch that do."""


def owned_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Those of a profile's options that Drumbeat sets itself, with what to use instead. Like sbatch, it takes
    underscores for hyphens and accepts the beginning of a name."""
    names = {key: key.replace("_", "-") for key, value in options.items() if value is not None}
    owned = {key: name if name in OWNED else next((one for one in OWNED if one.startswith(name)), "")
             for key, name in names.items()}
    return {key: OWNED[option] for key, option in owned.items() if option}
