"""Which nodes failed for a reason of the machine.

If all nodes of an attempt fail alike, the reason is rather in the run, the site or the network: no node is blamed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.records import AttemptStart, NodeDown, NodeUp, RankError
from drumbeat.launch.attempts.logs import numbered
from drumbeat.launch.attempts.meanings import explain, meaning_of


def nodes_of(attempt: Attempt) -> tuple[str, ...]:
    """The names of the attempt's nodes in their order; empty if unknown."""
    start = AttemptStart.read(attempt.launch)
    return start.nodes if start else ()


def has_all_launchers(attempt: Attempt) -> bool:
    """Whether the launchers of all nodes have started in the attempt."""
    nodes = nodes_of(attempt)
    return bool(nodes) and all(attempt.node_up(number).exists() for number in range(len(nodes)))


def checked(attempt: Attempt, found: Sequence[NodeDown]) -> dict[str, str]:
    """The nodes on which a check before the ranks found something, unless it did so on all of several nodes. A missing
    file may be missing on all nodes of the cluster: it is about the node only if another node has passed."""
    if is_everywhere(attempt, found) and len(found) > 1:
        return {}
    passed = any(not down.check for down in reports(attempt).values())
    return {down.host: down.message for down in found if passed or down.check == "failed"}


def is_everywhere(attempt: Attempt, found: Sequence[NodeDown]) -> bool:
    """Whether the checks found something on all nodes of the attempt."""
    return len(found) >= len(nodes_of(attempt))


def wrongly(before: Attempt, attempt: Attempt) -> str:
    """The only node of the attempt before, if a check failed on it and now on the only node of this attempt, which is
    another: then the reason is not the machine. Otherwise ''."""
    found = [[*reports(each).values()] for each in (before, attempt)]
    if any(len(nodes_of(each)) > 1 for each in (before, attempt)) or [
            [down.check for down in downs] for downs in found] != [["failed"], ["failed"]]:
        return ""
    (one,), (other,) = found
    return one.host if one.host != other.host else ""


def reports(attempt: Attempt) -> dict[int, NodeDown]:
    """The reports of the nodes, by their number."""
    return {node: down for node, path in numbered(attempt.path, "node", ".down.json") if (down := NodeDown.read(path))}


def but_not_all(failed: Sequence[str], nodes: Sequence[str]) -> list[str]:
    """The nodes that failed; none if these are all of several nodes."""
    return [] if len(nodes) > 1 and {*nodes} <= {*failed} else list(failed)


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


def lost(attempt: Attempt, broken_again: Collection[str]) -> dict[int, str]:
    """The nodes without which the next attempt may succeed, by their places in this one, with their names: those on
    which a check found something, or whose launcher has not started meanwhile; otherwise those that did not connect to
    the first node in time; and those that are `broken_again`."""
    names = dict(enumerate(nodes_of(attempt)))
    ups, downs = {place: NodeUp.read(attempt.node_up(place)) for place in names}, reports(attempt)
    names |= {place: up.host for place, up in ups.items() if up}
    if found := {place for place, down in downs.items() if down.check}:
        found |= {place for place, up in ups.items() if up is None}
    elif any(down.message for down in downs.values()) and (first := ups.get(0)) and first.connection_error == "":
        found = {place for place, up in ups.items() if up is None or up.connection_error != ""}
    return {place: name for place, name in names.items() if place in found or name in broken_again}


def broken(errors: Sequence[RankError]) -> dict[str, str]:
    """The only node on which ranks report a defect of the hardware."""
    found = {error.node: error for error in reversed(errors)
             if error.node and meaning_of(error.type, error.message, error.traceback).hardware}
    if len(found) != 1:
        return {}
    ((node, error),) = found.items()
    what, line, _ = explain(error.type, error.message, error.traceback)
    return {node: f"rank {error.rank} {what}: {line}"}
