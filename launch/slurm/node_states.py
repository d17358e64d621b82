"""Which nodes SLURM can use."""

from __future__ import annotations

import re
from collections.abc import Collection

from drumbeat.launch.slurm.client import SHORT_TIMEOUT, Answer, run_slurm

UNUSABLE = re.compile(r"down|drain|fail|error|inval|unknown|future|blocked|.*\*", re.IGNORECASE)
"""Matches the states of nodes that run no new job; "*" means that the node does not respond."""
LOST = re.compile(r"down|fail|error|.*\*", re.IGNORECASE)
"""Matches the states of nodes that have failed, also of those that an administrator has set so."""
DEFAULT = "*"
"""Behind the name of the cluster's default partition."""


def partition_nodes(partition: str | None, cluster: str = "") -> tuple[Answer, dict[str, bool]]:
    """sinfo's answer; and the nodes of these partitions, separated by commas, or of the default one, each with whether
    a job could run on it now or later."""
    chosen = [f"--partition={partition}"] if partition else []
    answer = run_slurm("sinfo", "--noheader", "--Node", *chosen, "--format=%P|%N|%T", cluster=cluster,
                       timeout=SHORT_TIMEOUT)
    rows = [line.split("|") for line in answer.text.splitlines() if line.count("|") == 2] if answer.code == 0 else []
    return answer, {node: not UNUSABLE.match(state) for name, node, state in rows
                    if partition or name.endswith(DEFAULT)}


def lost_nodes(nodes: Collection[str]) -> list[str]:
    """Those of these nodes that have failed, as far as SLURM knows."""
    if not nodes:
        return []
    answer = run_slurm("sinfo", "--noheader", "--Node", f"--nodes={','.join(nodes)}", "--format=%N|%T",
                       timeout=SHORT_TIMEOUT)
    rows = [line.split("|") for line in answer.text.splitlines() if line.count("|") == 1] if answer.code == 0 else []
    return sorted({node for node, state in rows if node in nodes and LOST.match(state)})
