"""The nodes that an attempt has lost, and remembering those on which it failed."""

from __future__ import annotations

import time
from dataclasses import replace

from drumbeat.configs.run.bad_nodes import remember
from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.records import Verdict
from drumbeat.launch.attempts.blame import nodes_of
from drumbeat.launch.slurm.node_states import lost_nodes

LOST = "SLURM lost the node while the run was on it"


def with_lost_nodes(verdict: Verdict, attempt: Attempt) -> Verdict:
    """The verdict of an attempt, with those of its nodes that have failed in SLURM's view."""
    lost = [name for name in lost_nodes(nodes_of(attempt)) if name not in verdict.bad_nodes]
    if not lost:
        return verdict
    return replace(verdict, message=f"{verdict.message}; SLURM has lost {' and '.join(lost)}",
                   bad_nodes=verdict.bad_nodes | dict.fromkeys(lost, LOST))


def remember_nodes(run: RunDir, verdict: Verdict) -> None:
    """Remembers the nodes that a verdict blames, in the folder of all runs."""
    for node, reason in verdict.bad_nodes.items():
        if not remember(run.path.parent.parent, node, reason, run.id, time.time()):
            print(f"warning: {node} cannot be remembered in {run.path.parent.parent}", flush=True)
