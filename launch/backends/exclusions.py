"""Which of the remembered nodes a job is submitted without, so that it can still be scheduled."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drumbeat.configs.run.bad_nodes import BadNode, remembered
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.slurm.client import PROGRAM_MISSING
from drumbeat.launch.slurm.node_list import node_names
from drumbeat.launch.slurm.node_states import partition_nodes


@dataclass(frozen=True)
class Exclusions:
    """The remembered nodes of a job's partition."""

    excluded: tuple[BadNode, ...] = ()
    """Those that it is submitted without."""
    used: dict[BadNode, str] = field(default_factory=dict)
    """Those that it may run on all the same, and why."""

    @property
    def nodes(self) -> list[str]:
        """The names of the excluded nodes, sorted."""
        return sorted(one.node for one in self.excluded)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each node, without a full stop."""
        return tuple(sorted([
            *(f"{one.node} is excluded until {date(one.until)}: {_reason(one)}" for one in self.excluded),
            *(f"{one.node} is not excluded, because {why}: {_reason(one)}" for one, why in self.used.items())]))

    def withdrawn(self, why: str) -> Exclusions:
        """The same without excluding any node."""
        return Exclusions((), self.used | dict.fromkeys(self.excluded, why))


def exclusions(plan: JobPlan) -> Exclusions:
    """The remembered nodes of the job's partition. Those that the profile names are used, and also so many of the
    others that at least half of the partition's usable nodes remain, and as many as the job needs; the last failures
    are excluded first. SLURM is asked only if a node is remembered."""
    bad = sorted(remembered(RunDir(Path(plan.run_dir)).all_runs), key=lambda one: -one.time)
    if not bad:
        return Exclusions()
    options = plan.site.sbatch
    answer, partition = partition_nodes(plan.site.partition or os.environ.get("SBATCH_PARTITION"),
                                        str(options.get("clusters") or "").partition(",")[0])
    if answer.code == PROGRAM_MISSING:  # a dry run on another machine: the job is not submitted from there
        return Exclusions(tuple(bad))
    if answer.code != 0:
        return Exclusions(tuple(bad)).withdrawn("SLURM does not say which nodes there are")
    already = _names(options.get("exclude"))
    usable = {node for node, works in partition.items() if works} - already
    return _chosen([one for one in bad if one.node in partition.keys() - already], usable,
                   required=_names(options.get("nodelist")), needed=plan.topology.least_nodes)


def _chosen(known: Sequence[BadNode], usable: Collection[str], *, required: Collection[str], needed: int) -> Exclusions:
    """Which of the `known` nodes are excluded, if the `usable` ones could run the job, which needs `needed` nodes."""
    spare = min(len(usable) // 2, len(usable) - needed)
    excluded: list[BadNode] = []
    used: dict[BadNode, str] = {}
    for one in known:
        if one.node in required:
            used[one] = "the profile's nodelist names it"
        elif one.node in usable and spare <= 0:
            used[one] = "too few nodes of the partition would remain"
        else:
            excluded.append(one)
            spare -= one.node in usable
    return Exclusions(tuple(excluded), used)


def _reason(one: BadNode) -> str:
    return f"{one.reason.rstrip('.')} (run {one.run})"


def date(moment: float) -> str:
    """A moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _names(text: object) -> set[str]:
    """The nodes of an option of sbatch; none if it cannot be read, which SLURM says itself."""
    try:
        return set(node_names(str(text or "")))
    except ValueError:
        return set()
