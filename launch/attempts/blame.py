"""Which nodes failed for a reason of the machine.

If all nodes of an attempt fail alike, the reason is rather in the run, the site or the network: no node is blamed.
"""

from __future__ import annotations

from collections.abc import Sequence

from drumbeat.configs.run.folder import Attempt
from drumbeat.configs.run.records import AttemptStart, NodeDown, NodeUp, RankError
from drumbeat.launch.attempts.meanings import explain, meaning_of


def nodes_of(attempt: Attempt) -> tuple[str, ...]:
    """The names of the attempt's nodes in their order; empty if unknown."""
    start = AttemptStart.read(attempt.launch)
    return start.nodes if start else ()


def checked(attempt: Attempt, found: Sequence[NodeDown]) -> dict[str, str]:
    """The nodes on which a check before the ranks found something, unless it did so on all of several nodes. On the
    only node, the site's check is about the node; a missing file may be missing on all nodes of the cluster."""
    nodes = max(len(nodes_of(attempt)), len(found))
    if len(found) == nodes > 1:
        return {}
    return {down.host: down.message for down in found if nodes > 1 or down.check == "failed"}


def unreachable(attempt: Attempt) -> dict[str, str]:
    """The only node whose launcher has not started, or which does not reach the first node while others do."""
    failures: dict[str, str] = {}
    reached = 0
    names = nodes_of(attempt)
    for number, name in list(enumerate(names))[1:]:
        up = NodeUp.read(attempt.node_up(number))
        if up is None:
            failures[name] = "its launcher did not start"
        elif up.connection_error == "":
            reached += 1
        elif up.connection_error:
            failures[name] = f"it did not reach {names[0]}: {up.connection_error}"
    only = next(iter(failures.values()), "")
    return failures if len(failures) == 1 and (reached or only == "its launcher did not start") else {}


def broken(errors: Sequence[RankError]) -> dict[str, str]:
    """The only node on which ranks report a defect of the hardware."""
    found = {error.node: error for error in reversed(errors)
             if error.node and meaning_of(error.type, error.message, error.traceback).hardware}
    if len(found) != 1:
        return {}
    ((node, error),) = found.items()
    what, line, _ = explain(error.type, error.message, error.traceback)
    return {node: f"rank {error.rank} {what}: {line}"}
