"""A config and a plan to test the launcher with: nothing in it is ever imported or trained."""

from __future__ import annotations

from pathlib import Path

from drumbeat.configs.load import load
from drumbeat.configs.run.plan import JobPlan, Topology
from drumbeat.configs.run.records import BackendName
from drumbeat.configs.schema import Config
from drumbeat.configs.site import Site
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.plan.job import Machine, plan_job

CONFIG = """\
name: small
batch_size: 12
model: {_target_: nets.Net, width: 8}
data:
  train: {_target_: sets.Folder, root: /pictures}
phases:
  head:
    epochs: 2
    optimizer: {_target_: torch.optim.Adam, lr: 1e-2}
  finetune:
    epochs: 3
    batch_size: 10
    optimizer: {_target_: torch.optim.SGD, lr: 0.05}
"""

FACTS = {"samples": {"train": 1000, "test": 20}, "steps": {"head": 167, "finetune": 300}, "parameters": 12345,
         "weights_bytes": 49380, "versions": {"torch": "2.14.1", "precision": "fp32"}}
"""What the preflight check would find."""


def write_config(folder: Path) -> Path:
    path = folder / "small.yaml"
    path.write_text(CONFIG)
    return path


def config(folder: Path, *assignments: str) -> Config:
    return load(write_config(folder), assignments).config


def plan(folder: Path, *assignments: str, backend: BackendName = "local", cpus: int = 8, gpus: int = 0,
         site: Site | None = None) -> JobPlan:
    """The plan of the small config on a machine with so many cores and GPUs."""
    resources = backend_of(backend).resources(Machine(cpus=cpus, gpus=tuple(map(str, range(gpus)))))
    return plan_job(config(folder, *assignments), run_dir=Path("/runs/small/RUN"), backend=backend, machine=resources,
                    site=site or Site(), folder=Path("/home/me"))


def topology(nodes: int, ranks: int, device: str, cpus: int) -> Topology:
    return Topology(nodes=nodes, ranks_per_node=ranks, device=device, cpus_per_rank=cpus)  # type: ignore[arg-type]
