"""What will run. `plan_job` is pure: the same question gives the same plan (`configs/run/plan.py`), and printing it is
the dry run."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from drumbeat.configs import importing
from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.configs.patience import nccl_environment, patience
from drumbeat.configs.run.plan import Allocation, JobPlan, Topology
from drumbeat.configs.run.records import BackendName
from drumbeat.configs.schema import Config
from drumbeat.configs.site import Site
from drumbeat.configs.trackers import trackers
from drumbeat.configs.yaml_text import inline
from drumbeat.launch.plan.gpus import present, usable_together, visible
from drumbeat.launch.plan.paths import path_faults

CLUSTER_CPUS_PER_RANK = {"cuda": 8, "cpu": 2}
"""The default number of cores for each rank on a cluster: for loader workers beside a GPU, otherwise for threads."""

USER_SETTABLE = re.compile(r"(TORCH_)?NCCL_|TORCH_FR_|CUBLAS_")
"""Variables that the plan sets only if the user has not."""

@dataclass(frozen=True, kw_only=True)
class Machine:
    """The resources that a plan may use: of this machine, or of each node that SLURM provides."""

    cpus: int | None
    """Cores; None if unknown, so that the plan has to request them."""
    gpus: tuple[str, ...] | None = ()
    """Their names in CUDA_VISIBLE_DEVICES: numbers, or UUIDs such as GPU-8932f937. None if unknown."""
    nodes: int | None = 1
    """The number of such nodes; None if unknown."""
    one_rank: bool = False
    """Whether there is only one rank, whatever the config requests."""
    python_path: tuple[str, ...] = ()
    """The folders in PYTHONPATH, from which targets can be imported."""
    chosen: tuple[str, ...] = ()
    """Variables of NCCL and cuBLAS that the user has set."""
    allocation: Allocation | None = None
    """The user's allocation that these nodes belong to."""

    @classmethod
    def here(cls) -> Machine:
        """The cores and GPUs that this process may use, found without importing torch."""
        return cls(cpus=usable_cpus(), gpus=visible(os.environ.get("CUDA_VISIBLE_DEVICES"), present()),
                   python_path=tuple(importing.python_path()),
                   chosen=tuple(sorted(filter(USER_SETTABLE.match, os.environ))))


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores that this process may run on, but no more than a container's quota allows."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max 100000"
        return cores


def plan_job(config: Config, *, run_dir: Path, backend: BackendName, machine: Machine, site: Site,
             folder: Path) -> JobPlan:
    """The job that trains `config` on the resources of its backend (`Backend.resources`). Raises `LaunchError` if the
    resources or the batch size do not suffice."""
    topology = _topology(config, machine)
    faults = batch_faults(config, topology)
    faults += _too_many_at_least(config.launch.min_nodes, topology)
    if not machine.allocation or site.gpu_flag != "none":
        faults += _missing_gpus(topology, machine)
    faults += _missing_nodes(topology, machine)
    faults += path_faults(run_dir, folder, on_slurm=machine.nodes is None or machine.allocation is not None)
    if faults:
        raise LaunchError(*faults)
    return JobPlan(run_dir=str(run_dir), name=config.name, backend=backend, topology=topology, site=site,
                   allocation=machine.allocation, environment=_environment(config, topology, folder, machine, site),
                   folder=str(folder), restarts=config.launch.restarts, deterministic=config.deterministic,
                   disk_wait_minutes=config.checkpoints.disk_wait_minutes,
                   idle_gpu_minutes=config.watchdog.idle_gpu_minutes, trackers=tuple(trackers(config.tracking.to)),
                   notify=tuple(config.notify.on) if config.notify.to or config.notify.command else ())


def _virtual_rank_faults(config: Config, topology: Topology) -> list[Fault]:
    """Why a config with virtual ranks cannot have the same bits at any world size; empty for one without them."""
    if (count := config.virtual_ranks) is None:
        return []
    given = f"virtual_ranks: {count}"
    faults = [] if topology.world_size <= count else [
        Fault(what=f"{count} virtual rank{'s' * (count > 1)} cannot be divided among {topology.world_size} ranks",
              where="virtual_ranks", given=given,
              remedy=f"Use at most {count} rank{'s' * (count > 1)}. The same bits at any number of ranks need the same "
                     "virtual ranks, so choose as many as the largest number of ranks that may come.")]
    faults += [Fault(what=f"{key} {size} is smaller than the number of virtual ranks", where="virtual_ranks",
                     given=f"{given}, {key}: {size}", remedy=f"Use at most {size}, or a larger batch.")
               for key, size in _batch_sizes(config) if size < count]
    if not config.deterministic:
        faults.append(Fault(what="the same bits at any number of ranks need deterministic kernels",
                            where="deterministic", given=f"deterministic: false, {given}",
                            remedy="Set deterministic: true, or virtual_ranks: null."))
    if config.compile and config.compile.get("dynamic") is not False:
        faults.append(Fault(what="torch.compile chooses kernels by the shapes that it has seen before, and which those "
                            "are depends on the number of ranks", where="compile",
                            given=f"{given}, compile: {inline(config.compile)}",
                            remedy="Let it compile for each shape alone: compile.dynamic=false"))
    options = {"mode": config.compile.get("mode"), **(config.compile.get("options") or {})}
    if "max-autotune" in str(options["mode"]) or any("max_autotune" in key and on for key, on in options.items()):
        faults.append(Fault(what="torch.compile chooses kernels by their measured speed", where="compile",
                            given=f"{given}, compile: {inline(config.compile)}",
                            remedy="Use another mode, and no max_autotune: compile.mode=default"))
    return faults


def _too_many_at_least(min_nodes: int | None, topology: Topology) -> list[Fault]:
    most = topology.nodes
    return [Fault(what=f"the run cannot have at least {min_nodes} nodes: it has {most} at most",
                  where="launch.min_nodes", given=f"min_nodes: {min_nodes}",
                  remedy=f"Use --nodes {min_nodes}-{min_nodes + 1}, for example; or null, to need all nodes."
                  )] if min_nodes is not None and min_nodes > most else []


def batch_faults(config: Config, topology: Topology) -> list[Fault]:
    """The faults of batches with fewer samples than there are ranks, and of virtual ranks."""
    return [*(
        Fault(what=f"batch_size {size} is smaller than the world size, {topology.world_size}", where=key,
              given=f"{key}: {size}",
              remedy=f"Use at most {size} rank{'s' * (size > 1)}, or a batch of at least {topology.world_size}.")
        for key, size in _batch_sizes(config) if size < topology.world_size
    ), *_virtual_rank_faults(config, topology)]


def _missing_nodes(topology: Topology, machine: Machine) -> list[Fault]:
    have = machine.nodes
    if have is None or topology.nodes <= have:
        return []
    what, remedy = ("more than one node needs a cluster", "Add --slurm; or, in an salloc, --here.") if (
        not machine.allocation) else (f"the allocation has {have} node{'s' * (have > 1)}",
                                      f"Use --nodes {have}, or ask salloc for more: --nodes=N")
    return [Fault(what=what, where="launch.nodes", given=f"{topology.nodes} nodes", remedy=remedy)]


def _missing_gpus(topology: Topology, machine: Machine) -> list[Fault]:
    if machine.gpus is None or topology.device == "cpu":
        return []
    count = len(usable_together(machine.gpus))
    if topology.ranks_per_node <= count:
        return []
    if count < len(machine.gpus):
        return [Fault(what="CUDA lets a process use only one MIG instance", where="launch.gpus",
                      given=f"{topology.ranks_per_node} ranks with one GPU each; the GPUs are MIG instances",
                      remedy="Use --gpus 1; or disable MIG mode (nvidia-smi -mig 0, as root).")]
    owner, more = ("a node of the allocation", "ask salloc for some: --gres=gpu:N") if machine.allocation else (
        "this machine", "--slurm to run where there are GPUs")
    return [Fault(what=f"{owner} has {count or 'no'} GPU{'s' * (count > 1)}", where="launch.gpus",
                  given=f"{topology.ranks_per_node} rank{'s' * (topology.ranks_per_node > 1)} with one GPU each",
                  remedy=f"Use --gpus {count}, or --procs N for ranks on the CPU." if count
                  else f"Use --procs N for ranks on the CPU, or {more}.")]


def torchrun_command(plan: JobPlan, *, attempt: str = "ATTEMPT", node: str = "NODE", address: str = "ADDRESS",
                     port: str = "PORT") -> list[str]:
    """The torchrun command that starts the ranks of one node. All ranks connect to the first node's port.

    Values that are set when the job starts are capital letters until then.
    """
    topology = plan.topology
    return [plan.python, "-m", "torch.distributed.run", f"--nnodes={topology.nodes}",
            f"--nproc-per-node={topology.ranks_per_node}", "--rdzv-backend=static", f"--node-rank={node}",
            f"--master-addr={address}", f"--master-port={port}", "--max-restarts=0",
            "-m", "drumbeat.trainers.worker", plan.run_dir, attempt]


def command_text(command: list[str]) -> str:
    """A command on several lines, ready to paste into a shell."""
    lines = [shlex.join(command[:3])]
    for word in map(shlex.quote, command[3:]):
        if word.startswith("-"):
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return " \\\n  ".join(lines)


def nodes_section(plan: JobPlan) -> tuple[str, str]:
    """The section of a dry run with the command of each node: title and text."""
    return "command on each node", ("# ATTEMPT, NODE, ADDRESS and PORT: set when the job starts\n"
                                    f"{command_text(torchrun_command(plan))}")


def _topology(config: Config, machine: Machine) -> Topology:
    requested = config.launch
    if machine.gpus is None and requested.gpus is None:
        raise LaunchError(Fault(
            what="the number of GPUs on each node is not given", where="launch.gpus", given="--slurm",
            remedy="Add --gpus N for N ranks with one GPU each, or --procs N for ranks on the CPU."))
    gpus = len(usable_together(machine.gpus or ())) if requested.gpus is None else requested.gpus
    if machine.one_rank:
        gpus = min(gpus, len(machine.gpus or ()), 1)
    device: Literal["cuda", "cpu"] = "cuda" if gpus else "cpu"
    ranks = 1 if machine.one_rank else gpus or requested.procs
    cpus = CLUSTER_CPUS_PER_RANK[device] if machine.cpus is None else max(1, machine.cpus // ranks)
    have, least = machine.allocation.nodes if machine.allocation else None, requested.min_nodes
    nodes = 1 if machine.one_rank else requested.nodes or have or 1
    if have and least is not None:  # an allocation gets no more
        nodes = max(least, min(nodes, have))
    return Topology(nodes=nodes, ranks_per_node=ranks, device=device, cpus_per_rank=requested.cpus_per_rank or cpus,
                    min_nodes=least if least is not None and least < nodes else None,
                    threads_per_rank=1 if config.virtual_ranks and requested.cpus_per_rank is None else None)


def _batch_sizes(config: Config) -> list[tuple[str, int]]:
    own = [(f"phases.{name}.batch_size", phase.batch_size) for name, phase in config.phases.items()
           if phase is not None and phase.batch_size is not None]
    return [("batch_size", config.batch_size), *own]


def _environment(config: Config, topology: Topology, folder: Path, machine: Machine,
                 site: Site) -> dict[str, str]:
    """The environment of the ranks. It fixes the number of threads, on which the order of summation and so the last
    bits depend. Variables of NCCL and cuBLAS that the user or the site has set are kept."""
    variables = {
        **importing.environment(str(folder), machine.python_path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "OMP_NUM_THREADS": str(topology.threads),
    }
    if topology.device == "cuda":
        defaults = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", **nccl_environment(patience(config))}
        if config.deterministic:
            defaults["NCCL_NVLS_ENABLE"] = "0"  # NVLink switches sum in a different order
        variables |= {name: value for name, value in defaults.items()
                      if name not in machine.chosen and name not in site.environment}
    if topology.device == "cuda" and machine.gpus and not machine.allocation:
        variables |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(machine.gpus)}
    return variables
