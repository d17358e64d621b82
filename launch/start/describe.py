"""The description of a plan that `--dry-run` prints."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from drumbeat.configs.errors import WIDTH, hang
from drumbeat.configs.layers import short
from drumbeat.configs.load import Loaded
from drumbeat.configs.run.plan import JobPlan, Topology
from drumbeat.configs.schema import Config
from drumbeat.configs.secrets import shown
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.backends.contract import Request
from drumbeat.launch.plan.inherited import not_inherited


def describe(loaded: Loaded, request: Request, *, notes: Sequence[str] = (), code: str = "") -> str:
    """The resolved config, the processes, the samples and the environment of each rank, and the exact request. `notes`
    are the backend's notes on the plan, `code` describes the code that the run uses."""
    plan = request.plan
    blocks = [
        ("config: defaults, and the source of every other value", shown(loaded.as_yaml())),
        ("processes", _processes(plan, code)),
        ("samples", _samples(loaded.config, plan.topology)),
        ("environment of every rank", _environment(request)),
        *request.sections,
    ]
    text = "\n\n".join(f"# --- {title}\n{block.rstrip()}" for title, block in blocks)
    return "\n".join([f"{text}\n", "# Not checked: targets, weights, data. The start of the run checks them first.",
                      *(_comment("# ", f"{note}.") for note in notes),
                      "# Dry run: nothing was started or written."])


def summary(plan: JobPlan) -> str:
    """The processes in one line: '16 ranks with one GPU each, 2 nodes x 8, through SLURM'."""
    topology = plan.topology
    device = "with one GPU each" if topology.device == "cuda" else "on the CPU"
    ranks = f"{_count(topology.world_size, 'rank')} {device}"
    least = f"{topology.min_nodes} to " if topology.min_nodes else ""
    nodes = f"{least}{topology.nodes} nodes x {topology.ranks_per_node}" if topology.nodes > 1 else ""
    return ", ".join(filter(None, [ranks, nodes, backend_of(plan.backend).location(plan)]))


def _processes(plan: JobPlan, code: str) -> str:
    topology = plan.topology
    threads = f", {_count(topology.threads, 'thread')} each" if topology.threads != topology.cpus_per_rank else ""
    return _table([("ranks", f"{summary(plan)}, {_count(topology.cpus_per_rank, 'core')} each{threads}"),
                   ("run folder", short(Path(plan.run_dir))), *([("code", code)] if code else [])])


def _samples(config: Config, topology: Topology) -> str:
    share = partial(_share, parts=topology.world_size, owner="rank")
    same = []
    if config.virtual_ranks is not None:
        share = partial(_share, parts=config.virtual_ranks, owner="virtual rank")
        same = [("virtual ranks", f"{_share(config.virtual_ranks, topology.world_size, 'rank', 'in all')}; the same "
                                  f"bits on any number of ranks up to {config.virtual_ranks}")]
    sizes = {name: phase.batch_size or config.batch_size for name, phase in config.phases.items() if phase is not None}
    return _table([*((name, share(size)) for name, size in sizes.items()), *same,
                   ("an epoch", "not known yet: the preflight check counts the samples when the run is submitted, and "
                                "checks the model, weights and data")])


def _share(size: int, parts: int, owner: str, when: str = "per step") -> str:
    low, high = size // parts, -(-size // parts)
    each = f"all on one {owner}" if parts == 1 else (f"{low} on each {owner}" if low == high
                                                     else f"{low} or {high} on each {owner}")
    return f"{size} {when}, {each}"


def _environment(request: Request) -> str:
    plan = request.plan
    lines = [f"{name}={value}" for name, value in plan.environment.items()]
    if plan.variables:
        lines += ["# inherited from this shell, because the config refers to them; in no file of the run:",
                  _comment("#   ", ", ".join(plan.variables))]
    ranks = plan.topology.ranks_per_node
    if plan.environment.get("CUDA_VISIBLE_DEVICES", "").count(",") >= ranks:
        lines.append(f"# the run takes the first {ranks} of these GPUs that no other run holds")
    if dropped := not_inherited(os.environ, backend_of(plan.backend).job_variables, request.text):
        lines.append("# variables of this shell that are not passed on:")
        lines += [_comment("#   ", f"{', '.join(name for name, why in dropped.items() if why == reason)}: {reason}")
                  for reason in dict.fromkeys(dropped.values())]
    return "\n".join(lines)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(hang(f"{name:<{width}}", text) for name, text in rows)


def _comment(prefix: str, text: str) -> str:
    """A text on lines that all begin with a prefix."""
    return textwrap.fill(text, WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False,
                         break_on_hyphens=False)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"
