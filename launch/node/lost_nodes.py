"""The nodes that an attempt has lost, and remembering those on which it failed."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.bad_nodes import forget, remember_all
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Verdict
from drumbeat.launch.attempts.blame import but_not_all, nodes_of
from drumbeat.launch.slurm.node_states import lost_nodes

LOST = "SLURM lost the node while the run was on it"


def with_lost_nodes(verdict: Verdict, attempt: Attempt) -> Verdict:
    """The verdict of an attempt, with those of its nodes that have failed in SLURM's view. SLURM is asked only about
    nodes that have not reported: a healthy one may not answer SLURM for a moment."""
    nodes = nodes_of(attempt)
    silent = [name for number, name in enumerate(nodes) if not attempt.node_down(number).exists()]
    lost = [name for name in lost_nodes(silent) if name not in verdict.bad_nodes]
    if not lost:
        return verdict
    return replace(verdict, message=f"{verdict.message}; SLURM has lost {' and '.join(lost)}",
                   bad_nodes=verdict.bad_nodes | dict.fromkeys(but_not_all(lost, nodes), LOST))


def remember_nodes(run: RunDir, verdict: Verdict) -> None:
    """Remembers the nodes that a verdict blames, in the folder of all runs, and forgets that which it clears."""
    for node in remember_all(run, verdict.bad_nodes, time.time()):
        print(f"warning: {node} cannot be remembered in {run.all_runs}", flush=True)
    with suppress(OSError):
        forget(run.all_runs, [verdict.cleared], run.id)
