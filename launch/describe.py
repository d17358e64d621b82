"""A plan in words: what `--dry-run` prints."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

from configs.layers import leaves
from configs.load import Loaded
from launch.executors import Request, command_text
from launch.plan import JobPlan, leaked, torchrun_command


def describe(loaded: Loaded, request: Request) -> str:
    """Config, processes, environment and the exact request."""
    plan = request.plan
    config = loaded.config
    blocks = [
        ("config (where each changed value comes from)", list(_config_lines(dataclasses.asdict(config), loaded.sources))),
        ("processes", _topology_lines(plan)),
        ("batch", [f"{name}: {size} samples a step, {_share(size, plan.topology.world_size)}"
                   for name, size in _batches(loaded)] + [
            "steps per epoch: not known before the data is counted, which preparing does at submission"]),
        ("environment", [f"{name}={value}" for name, value in plan.environment.items()] + (
            [f"not passed on: {', '.join(gone)}"] if (gone := leaked(os.environ)) else [])),
    ]
    if plan.where != "debug":
        blocks.append(("torchrun, on each node", command_text(torchrun_command(plan)).splitlines()))
    if plan.where != "local":
        title = "sbatch script" if plan.where == "slurm" else "call"
        blocks.append((title, request.text.splitlines()))
    text = "\n\n".join("\n".join([f"{title}:", *(f"  {line}".rstrip() for line in lines)]) for title, lines in blocks)
    return f"{text}\n\nNothing was started, and nothing was written."


def _config_lines(values: dict[str, Any], sources: dict[str, str]) -> Iterator[str]:
    """The config as YAML keys, one leaf a line, each changed one with its source behind it."""
    rows = []
    for key, value in leaves(values):
        source = sources.get(key) or next((sources[parent] for parent in _parents(key) if parent in sources), "")
        rows.append((f"{key}: {_inline(value)}", source))
    width = min(64, max(len(text) for text, _ in rows))
    for text, source in rows:
        yield f"{text:<{width}}  # {source}" if source else text


def _parents(key: str) -> Iterator[str]:
    while "." in key:
        key = key.rpartition(".")[0]
        yield key


def _inline(value: Any) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value)
    return {None: "null", True: "true", False: "false"}.get(value, str(value)) if not isinstance(value, int) or (
        isinstance(value, bool)) else str(value)


def _topology_lines(plan: JobPlan) -> list[str]:
    topology = plan.topology
    place = {"debug": "this process", "local": "this machine", "slurm": "SLURM"}[plan.where]
    kind = "a GPU each" if topology.device == "cuda" else "on the CPU"
    return [f"{topology.world_size} rank{'s' * (topology.world_size > 1)}: {topology.nodes} node"
            f"{'s' * (topology.nodes > 1)} x {topology.ranks_per_node}, {kind}, {topology.cpus_per_rank} core"
            f"{'s' * (topology.cpus_per_rank > 1)} each, in {place}".replace("in this machine", "on this machine")
            .replace("in SLURM", "through SLURM"), f"run folder: {plan.run_dir}"]


def _batches(loaded: Loaded) -> Iterator[tuple[str, int]]:
    for name, phase in loaded.config.phases.items():
        if phase is not None:
            yield name, phase.batch_size or loaded.config.batch_size


def _share(size: int, world_size: int) -> str:
    low, high = size // world_size, -(-size // world_size)
    return f"{low} on each rank" if low == high else f"{low} or {high} on each rank"
