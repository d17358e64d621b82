"""The nodes that are remembered in the folder of all runs, because an attempt failed on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError, hang, nearest
from drumbeat.configs.layers import short
from drumbeat.configs.run.bad_nodes import forget, remembered
from drumbeat.configs.terminal import visible
from drumbeat.launch.backends.exclusions import date
from drumbeat.launch.backends.typed import program
from drumbeat.launch.slurm.node_list import node_names


def nodes_text(runs: Path) -> str:
    """The remembered nodes, each with since when, until when, the run that failed on it, and why."""
    found = remembered(runs)
    if not found:
        return f"no failed node is remembered in {short(runs.absolute())}: jobs may use all nodes"
    width = max(len(one.node) for one in found) + 2
    lines = []
    for one in found:
        lines.append(f"{one.node:<{width}}from {date(one.time)} to {date(one.until)}, run {visible(one.run)}")
        lines.append(hang(" " * width, visible(one.reason)))
    return "\n".join([*lines, f"To use a node again: {program('drumbeat')} nodes --forget NODE"])


def forget_nodes(runs: Path, texts: Sequence[str]) -> str:
    """Forgets nodes, given as SLURM writes them. Returns a message. Raises `RunError` if one is not remembered."""
    known = [one.node for one in remembered(runs)]
    names = [name for text in texts for name in _names(text)]
    if unknown := [name for name in names if name not in known]:
        raise RunError(Fault(what=f"node '{unknown[0]}' is not remembered", where=short(runs.absolute()),
                             remedy=nearest(unknown[0], known) if known else "No node is remembered there."))
    forget(runs, names)
    return f"forgotten: {', '.join(names)}"


def _names(text: str) -> list[str]:
    try:
        return node_names(text)
    except ValueError:
        return [text]
